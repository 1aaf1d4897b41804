"""The 3×3 pools: their result, and their gradient's way back through the windows."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    BATCH,
    IN_CHANNELS,
    IN_HEIGHT,
    IN_WIDTH,
    INPUT,
    KIND,
    MAX_POOL,
    MEMBER_COUNT,
    MEMBERS,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    STRIDE,
)
from fastnas.kernels.gather import met_by, state_block
from fastnas.kernels.gradients import coefficients_of, grad_block
from fastnas.kernels.pixels import corners, rounded
from fastnas.kernels.rows import job_row, number, view


@triton.jit
def pooled(bases, job, channel, image, y, x, inside, C: constexpr, P: constexpr):
    """u (C, P): the 3×3 maximum, which keeps NaN, or mean of what is inside; padding 1."""
    height, width, stride = number(job, IN_HEIGHT), number(job, IN_WIDTH), number(job, STRIDE)
    known = (channel >= 0) & (channel < number(job, OUT_CHANNELS))
    pointer, image_stride = view(bases, job, INPUT)
    planes = corners(pointer, image_stride, channel, image, height * width)
    maximum = number(job, KIND) == MAX_POOL
    result = tl.zeros([C, P], tl.float32) + tl.where(maximum, -float("inf"), 0.0)
    count = tl.zeros([P], tl.float32)
    for tap in range(9):
        row, column = stride * y - 1 + tap // 3, stride * x - 1 + tap % 3
        there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        mask = known[:, None] & there[None, :]
        value = tl.load(planes + (row * width + column)[None, :], mask=mask, other=0.0).to(tl.float32)
        larger = there[None, :] & ((value > result) | (value != value))
        result = tl.where(maximum, tl.where(larger, value, result), result + value)
        count += tl.where(there, 1.0, 0.0)
    mean = result / tl.maximum(count, 1.0)[None, :]
    return tl.where(known[:, None] & inside[None, :], tl.where(maximum, result, mean), 0.0)


@triton.jit
def pool_transposed(bases, floats, table, leader, channel, image, y, x, inside, C: constexpr, P: constexpr):
    """(C, P): the gradient at (y, x) of the input of a pool, which all members of `leader` share.

    Each of the nine windows that hold the pixel has G = Σ over members of a·g + b·(u - mean) + c. The mean's is shared
    by what was inside, the maximum's goes to the first maximum in scan order, or to the last NaN, as in PyTorch. A norm
    of running statistics has no b and c, and must not see u's NaN.
    """
    in_height, in_width = number(leader, IN_HEIGHT), number(leader, IN_WIDTH)
    height, width, stride = number(leader, OUT_HEIGHT), number(leader, OUT_WIDTH), number(leader, STRIDE)
    known = channel < number(leader, IN_CHANNELS)
    maximum = number(leader, KIND) == MAX_POOL
    # A pixel that is its window's maximum is the window's u.
    u = state_block(bases, leader, channel, image, y, x, inside)
    lost = tl.zeros([C, P], tl.int32)
    if maximum:
        lost = lost_windows(bases, leader, channel, known, image, y, x, inside, C, P)
    result = tl.zeros([C, P], tl.float32)
    for tap in range(9):
        row, column, there = met_by(y + 1 - tap // 3, x + 1 - tap % 3, inside, stride, height, width)
        share = tl.full([P], 1.0, tl.float32)
        if not maximum:
            u = rounded(pooled(bases, leader, channel, image, row, column, there, C, P), bases)
            inner = covered(row, stride, in_height) * covered(column, stride, in_width)
            share = 1.0 / tl.maximum(inner, 1).to(tl.float32)
        grad = tl.zeros([C, P], tl.float32)
        for index in range(number(leader, MEMBER_COUNT)):
            job = job_row(table, number(leader, MEMBERS), index)
            a, b, c, mean = coefficients_of(floats, job, channel, known)
            grad += a[:, None] * grad_block(bases, job, channel, image, row, column, there)
            if number(job, BATCH) != 0:
                grad += b[:, None] * (u - mean[:, None]) + c[:, None]
        mask = known[:, None] & there[None, :] & ((lost >> tap) & 1 == 0)
        result += tl.where(mask, grad * share[None, :], 0.0)
    return result


@triton.jit
def covered(output, stride, size):
    """How many of the three rows (columns) that an output's window spans are inside."""
    first = stride * output - 1
    return tl.minimum(first + 3, size) - tl.maximum(first, 0)


@triton.jit
def lost_windows(bases, job, channel, known, image, y, x, inside, C: constexpr, P: constexpr):
    """(C, P) int32: bit 3·i + j says that (y, x) is not the maximum of the window that it is element (i, j) of.

    The 25 neighbours at (r, s), |r|, |s| ≤ 2, are looked at once, and each is in several of the nine windows.
    """
    height, width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    pointer, image_stride = view(bases, job, INPUT)
    here = corners(pointer, image_stride, channel, image, height * width) + (y * width + x)[None, :]
    own = tl.load(here, mask=known[:, None] & inside[None, :], other=0.0).to(tl.float32)
    own_nan = own != own
    lost = tl.zeros([C, P], tl.int32)
    for neighbour in range(25):
        r, s = neighbour // 5 - 2, neighbour % 5 - 2
        row, column = y + r, x + s
        there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        mask = known[:, None] & there[None, :]
        other = tl.load(here + (r * width + s), mask=mask, other=0.0).to(tl.float32)
        earlier, later = neighbour < 12, neighbour > 12
        beats = (other > own) | ((other == own) & earlier) | ((other != other) & (later | (own_nan == 0)))
        # As element (i, j) of a window, (y, x) has neighbours from -i to 2 - i and from -j to 2 - j.
        windows = spread(elements(r)) * elements(s)
        lost |= tl.where(beats & mask & (neighbour != 12), windows, 0)
    return lost


@triton.jit
def elements(offset):
    """Bits i for which an element i of three has a neighbour at this offset."""
    return ((7 << tl.maximum(-offset, 0)) & 7) >> tl.maximum(offset, 0)


@triton.jit
def spread(bits):
    """Bit i moved to bit 3·i."""
    return (bits & 1) + (bits & 2) * 4 + (bits & 4) * 16
