"""The way back through one stage of a candidate: batch norm, 1×1 convolution, and the weights of its gather."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    BATCH,
    BEFORE,
    DEPTHWISE,
    DILATION,
    GRAD_GATHERED,
    IN_CHANNELS,
    JOB_COLUMNS,
    KERNEL,
    NEXT,
    NORM,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    POINTWISE,
    RECTIFY,
    RESAMPLE,
    SUMS,
    WEIGHT_SUMS,
)
from fastnas.kernels.entry import kernel
from fastnas.kernels.gather import depthwise_weights, gathered, normed, rectified, state_block, transposed, window
from fastnas.kernels.gradients import coefficients_of, grad_block
from fastnas.kernels.pixels import rounded, store_block, tile_pixels
from fastnas.kernels.resample import resampled
from fastnas.kernels.rows import exists, job_row, number, only_if, per_channel, view
from fastnas.kernels.sums import exact_sum
from fastnas.kernels.units import kept_unit, output_block


@triton.jit
def stage_grad(bases, params, floats, table, job, row, image, y, x, inside, C: constexpr, P: constexpr):
    """g (C, P): as given to a last stage; of another, the transposed gather of the next one's ∂d where not x̂ ≤ 0."""
    g = tl.zeros([C, P], tl.float32)
    if number(job, NEXT) < 0:
        g = grad_block(bases, job, row, image, y, x, inside)
    else:
        following = table + tl.load(job + NEXT) * JOB_COLUMNS
        known = row < number(job, OUT_CHANNELS)
        own, norm = number(job, OUT_CHANNELS), tl.load(job + NORM)
        mean = per_channel(floats, norm, row, known, 0.0)
        scale = per_channel(floats, norm + own, row, known, 0.0)
        shift = per_channel(floats, norm + 2 * own, row, known, 0.0)
        u = output_block(bases, job, row, image, y, x, inside)
        g = transposed(bases, params, following, row, image, y, x, inside, C, P)
        g = tl.where((u - mean[:, None]) * scale[:, None] + shift[:, None] <= 0.0, 0.0, g)
    return g


@triton.jit
def unit_grad(
    bases,
    params,
    floats,
    table,
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
    """∂u (C_OUT, P) = a·g + b·(u - mean) + c; 0 where the pixel is not inside."""
    a, b, c, mean = coefficients_of(floats, job, row, row < number(job, OUT_CHANNELS))
    result = a[:, None] * stage_grad(bases, params, floats, table, job, row, image, y, x, inside, C_OUT, P)
    if number(job, BATCH) != 0:
        u = kept_unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C_OUT, P, RESAMPLING)
        result += b[:, None] * (u - mean[:, None]) + c[:, None]
    return tl.where(inside[None, :], result, 0.0)


@triton.jit
def read_by(bases, job, channel, image, y, x, inside, RESAMPLING: constexpr):
    """(C, P): what the ReLU of a stage without taps sees of a state at output pixels (y, x)."""
    if RESAMPLING and number(job, RESAMPLE) != 0:
        value = resampled(bases, job, channel, image, y, x, inside)
    else:
        value = state_block(bases, job, channel, image, y, x, inside)
    return value


@triton.jit
def add_to(pointer, value, mask, first):
    """Adds to what this block wrote at its first turn."""
    before = tl.load(pointer, mask=only_if(first == 0, mask), other=0.0)
    tl.store(pointer, before + value, mask=mask)


@triton.jit
def depthwise_sums(sums, first, bases, floats, job, grad, channel, image, y, x, inside):
    """∂w[channel, tap] += Σ_p ∂d·ReLU(x̂) where the tap meets it; `sums` is the part's ∂w."""
    kernel, dilation = number(job, KERNEL), number(job, DILATION)
    known = channel < number(job, IN_CHANNELS)
    reads = window(bases, floats, job, channel, known, image, y, x)
    into = sums + channel * (kernel * kernel)
    for tap in range(kernel * kernel):
        value = rectified(reads, known, inside, dilation * (tap // kernel), dilation * (tap % kernel))
        add_to(into + tap, tl.sum(grad * value, 1), known, first)


@triton.jit
def sums_before(
    part, first, bases, params, floats, table, job, grad, channel, image, y, x, inside, C: constexpr, P: constexpr
):
    """The part's Σ g and Σ g·(z - mean) (C,) of the stage before, whose output is z, summed over ∂d rather than g.

    Σ_q ∂d(q)·Σ_tap w·[x̂ > 0]·(z - mean), where x̂ and z are what the tap meets, and the same with 1 for (z - mean).
    """
    kernel, dilation, channels = number(job, KERNEL), number(job, DILATION), number(job, IN_CHANNELS)
    known = channel < channels
    reads = window(bases, floats, job, channel, known, image, y, x)
    weights, weighed = depthwise_weights(params, job, channel, known)
    ones = tl.zeros([C, P], tl.float32)
    centred = tl.zeros([C, P], tl.float32)
    for tap in range(kernel * kernel):
        z, value, mask = normed(reads, known, inside, dilation * (tap // kernel), dilation * (tap % kernel))
        weight = tl.load(weights + tap, mask=weighed, other=1.0)[:, None]
        passes = mask & ((value <= 0.0) == 0)
        ones += tl.where(passes, weight, 0.0)
        centred += tl.where(passes, weight * z, 0.0)
    before = table + tl.load(job + BEFORE) * JOB_COLUMNS
    into = floats + tl.load(before + SUMS) + 2 * part * channels + channel
    add_to(into, exact_sum(grad * ones, P), known, first)
    add_to(into + channels, exact_sum(grad * centred, P), known, first)


@kernel
def stage_back(
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
    WHOLE: constexpr,
):
    """Grid (parts, jobs): ∂W += ∂u·dᵀ, ∂w += ∂d·ReLU(x̂), ∂d = Wᵀ·∂u; part p takes tiles p, p + parts, …

    ∂u (C_out, P) is computed once a tile where one block holds all channels (WHOLE), else once for each block of C_in.
    A part without tiles takes one in which no pixel is inside, and so writes zeros. The part's sums are its own; the
    barrier makes what one turn has stored visible to all threads in the next.
    """
    params, floats = buffers[0], buffers[1]
    part, parts = tl.program_id(0), tl.num_programs(0)
    job = job_row(table, jobs, tl.program_id(1))
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    columns, rows = number(job, IN_CHANNELS), number(job, OUT_CHANNELS)
    weights = params + tl.load(job + POINTWISE)
    taps = tl.where(exists(job, DEPTHWISE), number(job, KERNEL) * number(job, KERNEL), 0)
    place = tl.load(job + WEIGHT_SUMS)
    sums = floats + place + part.to(tl.int64) * (columns * (rows + taps))
    tiles = tl.cdiv(images * height * width, P)
    row = tl.arange(0, C)
    for tile in range(part, tl.maximum(tiles, part + 1), parts):
        first = tile == part
        image, y, x, inside = tile_pixels(tile, images, height, width, P)
        if WHOLE:
            du = unit_grad(bases, params, floats, table, job, row, image, y, x, inside, C_IN, C, P, RESAMPLING)
        for begin in range(0, columns, C_IN):
            channel = begin + tl.arange(0, C_IN)
            known = channel < columns
            dd = tl.zeros([C_IN, P], tl.float32)
            for above in range(0, rows, C):
                row = above + tl.arange(0, C)
                if not WHOLE:
                    du = unit_grad(bases, params, floats, table, job, row, image, y, x, inside, C_IN, C, P, RESAMPLING)
                at = row[:, None] * columns + channel[None, :]
                mask = (row < rows)[:, None] & known[None, :]
                weight = tl.load(weights + at, mask=mask, other=0.0)
                dd = tl.dot(tl.trans(weight), du, dd, input_precision="ieee")
                if place >= 0:
                    d = gathered(bases, params, floats, job, channel, image, y, x, inside, C_IN, P, RESAMPLING)
                    add_to(sums + at, tl.dot(du, tl.trans(d), input_precision="ieee"), mask, first)
            dd = rounded(dd, bases)  # all sums are of what is stored
            if exists(job, GRAD_GATHERED):
                stored = dd
                if number(job, RECTIFY) != 0:
                    value = read_by(bases, job, channel, image, y, x, inside, RESAMPLING)
                    stored = tl.where(value <= 0.0, 0.0, dd)
                pointer, image_stride = view(bases, job, GRAD_GATHERED)
                store_block(pointer, image_stride, stored, channel, known, image, y, x, inside, height, width)
            if (place >= 0) & (taps > 0):
                depthwise_sums(sums + rows * columns, first, bases, floats, job, dd, channel, image, y, x, inside)
            if number(job, BEFORE) >= 0:
                sums_before(part, first, bases, params, floats, table, job, dd, channel, image, y, x, inside, C_IN, P)
        tl.debug_barrier()
