"""What a job's backward starts from: g, and the constants of its batch norm's derivative."""

import triton
import triton.language as tl

from fastnas.kernels.columns import COEFFICIENTS, GRAD, NORM, OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH
from fastnas.kernels.pixels import load_block
from fastnas.kernels.rows import number, per_channel, view


@triton.jit
def grad_block(bases, job, row, image, y, x, inside):
    """g (C, P) of a last stage, a pool or an identity: the gradient of o/α."""
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    pointer, image_stride = view(bases, job, GRAD)
    known = row < number(job, OUT_CHANNELS)
    return load_block(pointer, image_stride, row, known, image, y, x, inside, height, width)


@triton.jit
def coefficients_of(floats, job, row, known):
    """a, b, c (C,) of ∂u = a·g + b·(u - mean) + c, and the mean."""
    rows = number(job, OUT_CHANNELS)
    place = tl.load(job + COEFFICIENTS)
    a = per_channel(floats, place, row, known, 0.0)
    b = per_channel(floats, place + rows, row, known, 0.0)
    c = per_channel(floats, place + 2 * rows, row, known, 0.0)
    return a, b, c, per_channel(floats, tl.load(job + NORM), row, known, 0.0)
