"""u, what a job's batch norm sees: computed, or read where it is kept."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import CONVOLUTION, KIND, OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH, OUTPUT
from fastnas.kernels.gather import product
from fastnas.kernels.pixels import load_block, rounded
from fastnas.kernels.pools import pooled
from fastnas.kernels.rows import exists, number, view


@triton.jit
def unit(
    bases,
    params,
    floats,
    job,
    row,
    image,
    y,
    x,
    inside,
    C_IN: constexpr,
    C_OUT: constexpr,
    P: constexpr,
    RESAMPLING: constexpr,
):
    """u (C_OUT, P) as it is normalised: computed, and rounded to T. Not for the identity."""
    u = tl.zeros([C_OUT, P], tl.float32)
    if number(job, KIND) == CONVOLUTION:
        u = product(bases, params, floats, job, row, image, y, x, inside, C_IN, C_OUT, P, RESAMPLING)
    else:
        u = pooled(bases, job, row, image, y, x, inside, C_OUT, P)
    return rounded(u, bases)


@triton.jit
def output_block(bases, job, row, image, y, x, inside):
    """(C, P): u from `output`, where it is kept."""
    pointer, image_stride = view(bases, job, OUTPUT)
    known = (row >= 0) & (row < number(job, OUT_CHANNELS))
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    return load_block(pointer, image_stride, row, known, image, y, x, inside, height, width)


@triton.jit
def kept_unit(
    bases,
    params,
    floats,
    job,
    row,
    image,
    y,
    x,
    inside,
    C_IN: constexpr,
    C_OUT: constexpr,
    P: constexpr,
    RESAMPLING: constexpr,
):
    """`unit`, read where it is kept."""
    u = tl.zeros([C_OUT, P], tl.float32)
    if exists(job, OUTPUT):
        u = output_block(bases, job, row, image, y, x, inside)
    else:
        u = unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C_OUT, P, RESAMPLING)
    return u
