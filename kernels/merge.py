"""What merges the sums that tiles and parts have left, in double precision and in a fixed order.

One block does a job or a chunk; its sums are trees over blocks of sixteen, so they have the same bits every time.
"""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    AFFINE_SUMS,
    ALPHA,
    ALPHA_SUM,
    BATCH,
    BETA,
    COEFFICIENTS,
    EPS,
    GAMMA,
    IDENTITY,
    KIND,
    MOMENTS,
    NORM,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    REDUCTION_ACCUMULATE,
    REDUCTION_COLUMNS,
    REDUCTION_PARTS,
    REDUCTION_PLACE,
    REDUCTION_SIZE,
    REDUCTION_SOURCE,
    REDUCTION_STRIDE,
    RUNNING,
    RUNNING_STRIDE,
    STATISTICS,
    SUMS,
    SUMS_COUNT,
)
from fastnas.kernels.entry import kernel
from fastnas.kernels.rows import factor, job_row, number, only_if, per_channel

# Tiles, or parts, that are read at once, and what a block of `reduce` adds up (kReduceChunk of csrc/gpu/plan.h).
TILES = constexpr(16)
CHUNK = constexpr(32)


@triton.jit
def of_tiles(floats, place, which: constexpr, tile, tiles, channel, channels):
    """(TILES, C) in double of a buffer (tiles, 2, C): its first or second half; 0 beyond the last tile."""
    at = (2 * tile[:, None] + which) * channels + channel[None, :]
    mask = (tile < tiles)[:, None] & (channel < channels)[None, :]
    return tl.load(floats + place + at, mask=mask, other=0.0).to(tl.float64)


@triton.jit
def tile_means(floats, place, tile, tiles, channel, channels):
    """(TILES, C) in double: means with what their rounding left out."""
    at = (2 * tiles + tile[:, None]) * channels + channel[None, :]
    mask = (tile < tiles)[:, None] & (channel < channels)[None, :]
    rest = tl.load(floats + place + at, mask=mask, other=0.0).to(tl.float64)
    return of_tiles(floats, place, 0, tile, tiles, channel, channels) + rest


@triton.jit
def merged_moments(floats, job, total, channel, channels, P: constexpr, C: constexpr):
    """Mean and biased variance (C,) of `total` values, of the tiles' means and Σ(u - mean)².

    mean = Σ_t n_t·mean_t / M, variance = Σ_t (M2_t + n_t·(mean_t - mean)²) / M: Chan's formula for all tiles at once.
    """
    tiles = tl.cdiv(total, P)
    place = tl.load(job + MOMENTS)
    mean = tl.zeros([C], tl.float64)
    for begin in range(0, tiles, TILES):
        tile = begin + tl.arange(0, TILES)
        count = tl.maximum(tl.minimum(total - tile * P, P), 0).to(tl.float64)
        mean += tl.sum(count[:, None] * tile_means(floats, place, tile, tiles, channel, channels), 0)
    mean = mean / total
    variance = tl.zeros([C], tl.float64)
    for begin in range(0, tiles, TILES):
        tile = begin + tl.arange(0, TILES)
        count = tl.maximum(tl.minimum(total - tile * P, P), 0).to(tl.float64)
        shift = tile_means(floats, place, tile, tiles, channel, channels) - mean[None, :]
        squares = of_tiles(floats, place, 1, tile, tiles, channel, channels)
        variance += tl.sum(squares + count[:, None] * shift * shift, 0)
    variance = variance / total
    return mean.to(tl.float32), tl.where(variance < 0.0, 0.0, variance).to(tl.float32)


@kernel
def norms(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (1, jobs, blocks of C_out): o = (u - mean)·scale + shift.

    inverse = (variance + ε)^-½, scale = α·γ·inverse, shift = α·β, of the batch's statistics (merged from the tiles'
    moments where there are such, and left in `statistics`) or of running ones.
    """
    params, floats, statistics = buffers[0], buffers[1], buffers[2]
    job = job_row(table, jobs, tl.program_id(1))
    own = number(job, OUT_CHANNELS)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    known = channel < own
    mean = tl.zeros([C], tl.float32)
    variance = tl.zeros([C], tl.float32)
    if number(job, BATCH) == 0:
        running = tl.load(job + RUNNING)
        mean = per_channel(params, running, channel, known, 0.0)
        variance = per_channel(params, running + tl.load(job + RUNNING_STRIDE), channel, known, 0.0)
    else:
        place = statistics + tl.load(job + STATISTICS) + channel
        if number(job, MOMENTS) >= 0:
            total = images * number(job, OUT_HEIGHT) * number(job, OUT_WIDTH)
            mean, variance = merged_moments(floats, job, total, channel, own, P, C)
            tl.store(place, mean, mask=known)
            tl.store(place + channels, variance, mask=known)
        else:
            mean = tl.load(place, mask=known, other=0.0)
            variance = tl.load(place + channels, mask=known, other=0.0)
    eps = tl.load(job + EPS).to(tl.float64, bitcast=True)
    inverse = 1.0 / tl.sqrt(variance.to(tl.float64) + eps)
    alpha = factor(params, job, ALPHA)
    gamma = alpha.to(tl.float64) * per_channel(params, tl.load(job + GAMMA), channel, known, 1.0)
    norm = floats + tl.load(job + NORM) + channel
    tl.store(norm, mean, mask=known)
    tl.store(norm + own, (gamma * inverse).to(tl.float32), mask=known)
    tl.store(norm + 2 * own, alpha * per_channel(params, tl.load(job + BETA), channel, known, 0.0), mask=known)
    tl.store(norm + 3 * own, inverse.to(tl.float32), mask=known)


@kernel
def coefficients(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (1, jobs): batch norm's derivative ∂u = a·g + b·(u - mean) + c and what it gives besides.

    s1 = Σ g, s2 = inverse·Σ g·(u - mean), a = α·γ·inverse, b = -a·inverse·s2/M, c = -a·s1/M (b = c = 0 with running
    statistics); into `affine_sums` α·s2 and α·s1, its parts of ∂γ and ∂β; into `alpha_sum` Σ_c γ·s2 + β·s1, for the
    identity Σ_c Σ g·x.
    """
    params, floats = buffers[0], buffers[1]
    job = job_row(table, jobs, tl.program_id(1))
    identity = number(job, KIND) == IDENTITY
    own = number(job, OUT_CHANNELS)
    total = images * number(job, OUT_HEIGHT) * number(job, OUT_WIDTH)
    sums = number(job, SUMS_COUNT)
    place = tl.load(job + SUMS)
    alpha = factor(params, job, ALPHA)
    alpha_sum = tl.zeros([C], tl.float64)
    for first in range(0, own, C):
        channel = first + tl.arange(0, C)
        known = channel < own
        s1 = tl.zeros([C], tl.float64)
        s2 = tl.zeros([C], tl.float64)
        for begin in range(0, sums, TILES):
            tile = begin + tl.arange(0, TILES)
            s1 += tl.sum(of_tiles(floats, place, 0, tile, sums, channel, own), 0)
            s2 += tl.sum(of_tiles(floats, place, 1, tile, sums, channel, own), 0)
        if identity:
            alpha_sum += s2
        else:
            inverse = per_channel(floats, tl.load(job + NORM) + 3 * own, channel, known, 0.0).to(tl.float64)
            gamma = per_channel(params, tl.load(job + GAMMA), channel, known, 1.0).to(tl.float64)
            beta = per_channel(params, tl.load(job + BETA), channel, known, 0.0).to(tl.float64)
            s2 *= inverse
            alpha_sum += tl.where(known, gamma * s2 + beta * s1, 0.0)
            a = alpha * gamma * inverse
            batch = number(job, BATCH) != 0
            b = tl.where(batch, -a * inverse * s2 / total, 0.0)
            c = tl.where(batch, -a * s1 / total, 0.0)
            left = floats + tl.load(job + COEFFICIENTS) + channel
            tl.store(left, a.to(tl.float32), mask=known)
            tl.store(left + own, b.to(tl.float32), mask=known)
            tl.store(left + 2 * own, c.to(tl.float32), mask=known)
            affine = tl.load(job + AFFINE_SUMS)
            parts, wanted = floats + affine + channel, only_if(affine >= 0, known)
            tl.store(parts, (alpha * s2).to(tl.float32), mask=wanted)
            tl.store(parts + own, (alpha * s1).to(tl.float32), mask=wanted)
    at = tl.load(job + ALPHA_SUM)
    tl.store(floats + at, tl.sum(alpha_sum, 0).to(tl.float32), mask=at >= 0)


@kernel
def reduce(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (chunks of CHUNK, reductions): grads[place + i] = Σ_p floats[source + p·stride + i], in double.

    Plus what is there already where `accumulate` says so: of other edges that share a parameter.
    """
    floats, grads = buffers[1], buffers[3]
    row = table + jobs + tl.program_id(1) * REDUCTION_COLUMNS
    source, stride = tl.load(row + REDUCTION_SOURCE), tl.load(row + REDUCTION_STRIDE)
    parts = number(row, REDUCTION_PARTS)
    i = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    known = i < number(row, REDUCTION_SIZE)
    place = grads + tl.load(row + REDUCTION_PLACE) + i
    before = only_if(number(row, REDUCTION_ACCUMULATE) != 0, known)
    result = tl.load(place, mask=before, other=0.0).to(tl.float64)
    for begin in range(0, parts, TILES):
        part = begin + tl.arange(0, TILES)
        at = floats + source + part[:, None] * stride + i[None, :]
        result += tl.sum(tl.load(at, mask=(part < parts)[:, None] & known[None, :], other=0.0).to(tl.float64), 0)
    tl.store(place, result.to(tl.float32), mask=known)
