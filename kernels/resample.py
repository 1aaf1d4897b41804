"""Bilinear resampling of a state to another size, corners' pixels on each other, and its transpose.

Places are exact: along an axis that goes from H_in to H_out pixels, output i lies at i·(H_in - 1)/(H_out - 1).
"""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import GRAD_GATHERED, IN_CHANNELS, IN_HEIGHT, IN_WIDTH, INPUT, OUT_HEIGHT, OUT_WIDTH
from fastnas.kernels.pixels import corners
from fastnas.kernels.rows import number, view


@triton.jit
def between(place, before, after):
    """Along an axis, the two inputs (P,) that outputs (P,) lie between, and the second's share."""
    steps = tl.maximum(after - 1, 1)
    along = place * (before - 1)
    first = along // steps
    return first, tl.minimum(first + 1, before - 1), (along - first * steps).to(tl.float32) / steps.to(tl.float32)


@triton.jit
def resampled(bases, job, channel, image, y, x, inside):
    """(C, P): the job's input, a state, as it is at output pixels (y, x); 0 where the pixel is not inside.

    All four neighbours count, also with share 0: as in PyTorch, NaN spreads to what lies beside it.
    """
    height, width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    above, below, lower = between(y, height, number(job, OUT_HEIGHT))
    left, right, later = between(x, width, number(job, OUT_WIDTH))
    pointer, image_stride = view(bases, job, INPUT)
    planes = corners(pointer, image_stride, channel, image, height * width)
    mask = (channel < number(job, IN_CHANNELS))[:, None] & inside[None, :]
    upper_line = on_line(planes + (above * width)[None, :], left, right, later, mask)
    lower_line = on_line(planes + (below * width)[None, :], left, right, later, mask)
    return (1.0 - lower)[None, :] * upper_line + lower[None, :] * lower_line


@triton.jit
def on_line(line, left, right, share, mask):
    """(C, P): between two places (P,) of a line whose first pixels' addresses (C, P) are given."""
    first = tl.load(line + left[None, :], mask=mask, other=0.0).to(tl.float32)
    second = tl.load(line + right[None, :], mask=mask, other=0.0).to(tl.float32)
    return (1.0 - share)[None, :] * first + share[None, :] * second


@triton.jit
def readers(place, before, after):
    """Along an axis, the first and the last output (P,) that have an input (P,) between their two."""
    steps, size = tl.maximum(after - 1, 1), before - 1
    first = tl.where(place > 0, (place - 1) * steps // tl.maximum(size, 1) + 1, 0)
    last = tl.where(size > 0, ((place + 1) * steps - 1) // tl.maximum(size, 1), after - 1)
    return first, tl.minimum(last, after - 1)


@triton.jit
def share(output, place, before, after):
    """How much of inputs (P,) is in outputs (P,) that have them between their two."""
    steps = tl.maximum(after - 1, 1)
    apart = tl.abs(output * (before - 1) - place * steps)
    return 1.0 - apart.to(tl.float32) / steps.to(tl.float32)


@triton.jit
def resample_transposed(bases, job, channel, image, y, x, inside, C: constexpr, P: constexpr):
    """(C, P): the gradient of the job's input at (y, x) = Σ of ∂d over the outputs that read it, by its shares."""
    in_height, in_width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    top, bottom = readers(y, in_height, height)
    left, right = readers(x, in_width, width)
    pointer, image_stride = view(bases, job, GRAD_GATHERED)
    planes = corners(pointer, image_stride, channel, image, height * width)
    known = channel < number(job, IN_CHANNELS)
    result = tl.zeros([C, P], tl.float32)
    for i in range(tl.max(tl.where(inside, bottom - top + 1, 0))):
        row = top + i
        line = tl.zeros([C, P], tl.float32)
        for j in range(tl.max(tl.where(inside, right - left + 1, 0))):
            column = left + j
            mask = known[:, None] & (inside & (row <= bottom) & (column <= right))[None, :]
            grad = tl.load(planes + (row * width + column)[None, :], mask=mask, other=0.0).to(tl.float32)
            line += share(column, x, in_width, width)[None, :] * grad
        result += share(row, y, in_height, height)[None, :] * line
    return result
