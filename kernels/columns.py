"""Where a table's rows hold what: the columns of the structs in csrc/gpu/job.h, in their order.

A row is a run of int64. A view takes three columns: its base, its offset and the elements from image to image.
"""

from triton.language import constexpr

# Tensors of type T, as `Base` of csrc/gpu/job.h counts them.
BASES = constexpr(9)

# What a job is.
CONVOLUTION = constexpr(0)
MAX_POOL = constexpr(1)
AVG_POOL = constexpr(2)
IDENTITY = constexpr(3)

# Job
KIND = constexpr(0)
KERNEL = constexpr(1)
DILATION = constexpr(2)
STRIDE = constexpr(3)
START = constexpr(4)
RESAMPLE = constexpr(5)
IN_CHANNELS = constexpr(6)
IN_HEIGHT = constexpr(7)
IN_WIDTH = constexpr(8)
OUT_CHANNELS = constexpr(9)
OUT_HEIGHT = constexpr(10)
OUT_WIDTH = constexpr(11)
FIRST = constexpr(12)
INPUT = constexpr(13)
INPUT_NORM = constexpr(16)
DEPTHWISE = constexpr(17)
POINTWISE = constexpr(18)
OUTPUT = constexpr(19)
MOMENTS = constexpr(22)
NORM = constexpr(23)
EPS = constexpr(24)
BATCH = constexpr(25)
GAMMA = constexpr(26)
BETA = constexpr(27)
ALPHA = constexpr(28)
RUNNING = constexpr(29)
RUNNING_STRIDE = constexpr(30)
STATISTICS = constexpr(31)
GRAD = constexpr(32)
SUMS = constexpr(35)
SUMS_COUNT = constexpr(36)
COEFFICIENTS = constexpr(37)
AFFINE_SUMS = constexpr(38)
ALPHA_SUM = constexpr(39)
GRAD_GATHERED = constexpr(40)
RECTIFY = constexpr(43)
WEIGHT_SUMS = constexpr(44)
BEFORE = constexpr(45)
NEXT = constexpr(46)
MEMBERS = constexpr(47)
MEMBER_COUNT = constexpr(48)
JOB_COLUMNS = constexpr(49)

# State
STATE_CHANNELS = constexpr(0)
STATE_HEIGHT = constexpr(1)
STATE_WIDTH = constexpr(2)
STATE_VALUE = constexpr(3)
STATE_GRAD = constexpr(6)
STATE_GIVEN = constexpr(9)
STATE_COLUMNS = constexpr(12)

# Reduction
REDUCTION_SOURCE = constexpr(0)
REDUCTION_PARTS = constexpr(1)
REDUCTION_STRIDE = constexpr(2)
REDUCTION_SIZE = constexpr(3)
REDUCTION_PLACE = constexpr(4)
REDUCTION_ACCUMULATE = constexpr(5)
REDUCTION_COLUMNS = constexpr(6)
