"""Sums over a tile's pixels that eager PyTorch adds up in double precision."""

import triton
import triton.language as tl
from triton.language import constexpr


@triton.jit
def exact_sum(x, P: constexpr):
    """Σ over the pixels of x (C, P), off by little more than the rounding of the result.

    Added to a number that is larger than any sum of them, the x lose what lies below its last bit; what is left are
    whole multiples of that bit, whose sum is exact in any order, and what they lost is summed apart. Float all the way:
    many GPUs have one unit for double precision to 32 or 64 for float. Infinities are summed as they are.
    """
    large = tl.max(tl.abs(x), 1) * (4 * P)
    finite = (large < float("inf"))[:, None]
    high = tl.where(finite, (x + large[:, None]) - large[:, None], x)
    return tl.sum(high, 1) + tl.sum(tl.where(finite, x - high, 0.0), 1)
