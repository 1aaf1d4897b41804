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
IN_CHANNELS = constexpr(5)
IN_HEIGHT = constexpr(6)
IN_WIDTH = constexpr(7)
OUT_CHANNELS = constexpr(8)
OUT_HEIGHT = constexpr(9)
OUT_WIDTH = constexpr(10)
FIRST = constexpr(11)
INPUT = constexpr(12)
INPUT_NORM = constexpr(15)
DEPTHWISE = constexpr(16)
POINTWISE = constexpr(17)
OUTPUT = constexpr(18)
MOMENTS = constexpr(21)
NORM = constexpr(22)
EPS = constexpr(23)
BATCH = constexpr(24)
GAMMA = constexpr(25)
BETA = constexpr(26)
ALPHA = constexpr(27)
RUNNING = constexpr(28)
RUNNING_STRIDE = constexpr(29)
STATISTICS = constexpr(30)
GRAD = constexpr(31)
SUMS = constexpr(34)
SUMS_COUNT = constexpr(35)
COEFFICIENTS = constexpr(36)
GAMMA_GRAD = constexpr(37)
BETA_GRAD = constexpr(38)
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
REDUCTION_COLUMNS = constexpr(5)
