"""Backward at its two ends: the sums that batch norm's derivative needs of g, and the gradient of a state."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    ALPHA,
    CONVOLUTION,
    IDENTITY,
    KIND,
    NORM,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    RESAMPLE,
    STATE_CHANNELS,
    STATE_GIVEN,
    STATE_GRAD,
    STATE_HEIGHT,
    STATE_VALUE,
    STATE_WIDTH,
    SUMS,
)
from fastnas.kernels.entry import kernel
from fastnas.kernels.gather import state_block, transposed
from fastnas.kernels.gradients import grad_block
from fastnas.kernels.pixels import load_block, store_block, tile_pixels
from fastnas.kernels.pools import pool_transposed
from fastnas.kernels.resample import resample_transposed
from fastnas.kernels.rows import exists, factor, job_row, number, only_if, per_channel, view
from fastnas.kernels.sums import exact_sum
from fastnas.kernels.units import unit


@triton.jit
def store_sums(floats, job, tile, row, known, first, second):
    """A tile's two sums (C,) into `sums`."""
    rows = number(job, OUT_CHANNELS)
    at = floats + tl.load(job + SUMS) + 2 * tile * rows + row
    tl.store(at, first, mask=known)
    tl.store(at + rows, second, mask=known)


@kernel
def grad_sums(
    bases,
    buffers,
    table,
    jobs,
    count,
    state,
    images,
    channels,
    accumulate,
    P: constexpr,
    C_IN: constexpr,
    C: constexpr,
    RESAMPLING: constexpr,
):
    """Grid (tiles, jobs, blocks of C_out): a tile's Σ g and Σ g·(u - mean) (C_out); for the identity 0 and Σ g·x."""
    params, floats = buffers[0], buffers[1]
    tile = tl.program_id(0)
    job = job_row(table, jobs, tl.program_id(1))
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    if tile * P < images * height * width:
        row = tl.program_id(2) * C + tl.arange(0, C)
        known = row < number(job, OUT_CHANNELS)
        image, y, x, inside = tile_pixels(tile, images, height, width, P)
        g = grad_block(bases, job, row, image, y, x, inside)
        if number(job, KIND) == IDENTITY:
            value = state_block(bases, job, row, image, y, x, inside)
            store_sums(floats, job, tile, row, known, tl.zeros([C], tl.float32), exact_sum(g * value, P))
        else:
            u = unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P, RESAMPLING)
            mean = per_channel(floats, tl.load(job + NORM), row, known, 0.0)
            products = tl.where(inside[None, :], g * (u - mean[:, None]), 0.0)
            store_sums(floats, job, tile, row, known, exact_sum(g, P), exact_sum(products, P))


@kernel
def source_back(
    bases,
    buffers,
    table,
    jobs,
    count,
    state,
    images,
    channels,
    accumulate,
    P: constexpr,
    C_IN: constexpr,
    C: constexpr,
    RESAMPLING: constexpr,
):
    """Grid (tiles, 1, blocks of C): a state's gradient = what is given + Σ over the jobs that read it.

    Convolutions: the transposed gather of ∂d where not x ≤ 0, or the transposed resampling of ∂d, which has its mask
    already; pools: their gradient through the windows; the identity: α·g. x is read where one of them looks at it.
    """
    params, floats = buffers[0], buffers[1]
    of = table + state
    own, height, width = number(of, STATE_CHANNELS), number(of, STATE_HEIGHT), number(of, STATE_WIDTH)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    known = channel < own
    image, y, x, inside = tile_pixels(tl.program_id(0), images, height, width, P)
    pointer, image_stride = view(bases, of, STATE_GIVEN)
    given = only_if(exists(of, STATE_GIVEN), known)
    result = load_block(pointer, image_stride, channel, given, image, y, x, inside, height, width)
    pointer, image_stride = view(bases, of, STATE_VALUE)
    looks = only_if(exists(of, STATE_VALUE), known)
    value = load_block(pointer, image_stride, channel, looks, image, y, x, inside, height, width)
    for index in range(count):
        job = job_row(table, jobs, index)
        kind = number(job, KIND)
        if kind == CONVOLUTION:
            if RESAMPLING and number(job, RESAMPLE) != 0:
                result += resample_transposed(bases, job, channel, image, y, x, inside, C, P)
            else:
                grad = transposed(bases, params, job, channel, image, y, x, inside, C, P)
                result += tl.where(value <= 0.0, 0.0, grad)
        elif kind == IDENTITY:
            result += factor(params, job, ALPHA) * grad_block(bases, job, channel, image, y, x, inside)
        else:
            result += pool_transposed(bases, floats, table, job, channel, image, y, x, inside, C, P)
    pointer, image_stride = view(bases, of, STATE_GRAD)
    store_block(pointer, image_stride, result, channel, known, image, y, x, inside, height, width)
