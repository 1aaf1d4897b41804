"""The forward pass: a stage's values and their moments, and the sum of candidates into a state."""

import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    ALPHA,
    FIRST,
    IDENTITY,
    KIND,
    MOMENTS,
    NORM,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    OUTPUT,
    STATE_CHANNELS,
    STATE_HEIGHT,
    STATE_VALUE,
    STATE_WIDTH,
)
from fastnas.kernels.entry import kernel
from fastnas.kernels.gather import state_block
from fastnas.kernels.pixels import load_block, store_block, tile_pixels
from fastnas.kernels.rows import exists, factor, job_row, number, only_if, per_channel, view
from fastnas.kernels.sums import exact_sum
from fastnas.kernels.units import kept_unit, unit


@kernel
def moments(
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
    """Grid (tiles, jobs, blocks of C_out): u into `output` if it is kept, a tile's mean and Σ(u - mean)² (C_out) of it.

    The mean is subtracted before anything is squared, while u is still in registers; what its rounding to float leaves
    out goes along, since means of tiles that are wrong in their last bits would show in the variance.
    """
    params, floats = buffers[0], buffers[1]
    tile = tl.program_id(0)
    job = job_row(table, jobs, tl.program_id(1))
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    total = images * height * width
    if tile * P < total:
        own = number(job, OUT_CHANNELS)
        row = tl.program_id(2) * C + tl.arange(0, C)
        known = row < own
        image, y, x, inside = tile_pixels(tile, images, height, width, P)
        u = unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P, RESAMPLING)
        if exists(job, OUTPUT):
            pointer, image_stride = view(bases, job, OUTPUT)
            store_block(pointer, image_stride, u, row, known, image, y, x, inside, height, width)
        place = tl.load(job + MOMENTS)
        if place >= 0:
            pixels = tl.minimum(total - tile * P, P)
            mean = tl.sum(u, 1) / pixels
            rest = tl.sum(tl.where(inside[None, :], u - mean[:, None], 0.0), 1) / pixels
            centred = tl.where(inside[None, :], u - mean[:, None] - rest[:, None], 0.0)
            at = floats + place + 2 * tile * own + row
            tl.store(at, mean, mask=known)
            tl.store(at + own, exact_sum(centred * centred, P), mask=known)
            rests = floats + place + (2 * tl.cdiv(total, P) + tile) * own + row
            tl.store(rests, rest, mask=known)


@kernel
def apply(
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
    """Grid (tiles, 1, blocks of C): y = Σ over jobs of (u - mean)·scale + shift, or α·x, plus y if `accumulate`.

    u is computed again where it is not kept; where it is, that may be in y's place, which each thread reads before it
    writes there.
    """
    params, floats = buffers[0], buffers[1]
    into = table + state
    own, height, width = number(into, STATE_CHANNELS), number(into, STATE_HEIGHT), number(into, STATE_WIDTH)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    image, y, x, inside = tile_pixels(tl.program_id(0), images, height, width, P)
    pointer, image_stride = view(bases, into, STATE_VALUE)
    before = only_if(accumulate != 0, channel < own)
    result = load_block(pointer, image_stride, channel, before, image, y, x, inside, height, width)
    for index in range(count):
        job = job_row(table, jobs, index)
        if number(job, KIND) == IDENTITY:
            result += factor(params, job, ALPHA) * state_block(bases, job, channel, image, y, x, inside)
        else:
            row, rows = channel - number(job, FIRST), number(job, OUT_CHANNELS)
            known = (row >= 0) & (row < rows)
            u = kept_unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P, RESAMPLING)
            norm = tl.load(job + NORM)
            mean = per_channel(floats, norm, row, known, 0.0)
            scale = per_channel(floats, norm + rows, row, known, 0.0)
            shift = per_channel(floats, norm + 2 * rows, row, known, 0.0)
            result += (u - mean[:, None]) * scale[:, None] + shift[:, None]
    store_block(pointer, image_stride, result, channel, channel < own, image, y, x, inside, height, width)
