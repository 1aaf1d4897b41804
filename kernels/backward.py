"""The backward pass through batch norms, stages and pools, down to the gradients of states and weights."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    ALPHA,
    BATCH,
    BEFORE,
    COEFFICIENTS,
    CONVOLUTION,
    DEPTHWISE,
    DILATION,
    GRAD,
    GRAD_GATHERED,
    IDENTITY,
    IN_CHANNELS,
    IN_HEIGHT,
    IN_WIDTH,
    JOB_COLUMNS,
    KERNEL,
    KIND,
    MEMBER_COUNT,
    MEMBERS,
    NORM,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    POINTWISE,
    STATE_CHANNELS,
    STATE_GIVEN,
    STATE_GRAD,
    STATE_HEIGHT,
    STATE_VALUE,
    STATE_WIDTH,
    SUMS,
    WEIGHT_SUMS,
)
from fastnas.kernels.gather import (
    gathered,
    input_norm,
    kept_unit,
    pool_transposed,
    pooled,
    rectified,
    state_block,
    transposed,
    unit,
    window,
)
from fastnas.kernels.pixels import load_block, rounded, store_block, tile_pixels
from fastnas.kernels.rows import exists, factor, job_row, number, only_if, per_channel, view


@triton.jit
def grad_block(bases, job, row, image, y, x, inside):
    """g (C, P), the gradient of o/α."""
    height, width = number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    pointer, image_stride = view(bases, job, GRAD)
    known = row < number(job, OUT_CHANNELS)
    return load_block(pointer, image_stride, row, known, image, y, x, inside, height, width)


@triton.jit
def store_sums(floats, job, tile, row, known, first, second):
    """A tile's two sums (C,) into `sums`."""
    rows = number(job, OUT_CHANNELS)
    at = floats + tl.load(job + SUMS) + 2 * tile * rows + row
    tl.store(at, first, mask=known)
    tl.store(at + rows, second, mask=known)


@triton.jit
def grad_sums(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
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
            store_sums(floats, job, tile, row, known, tl.zeros([C], tl.float32), tl.sum(g * value, 1))
        else:
            u = unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P)
            mean = per_channel(floats, tl.load(job + NORM), row, known, 0.0)
            products = tl.where(inside[None, :], g * (u - mean[:, None]), 0.0)
            store_sums(floats, job, tile, row, known, tl.sum(g, 1), tl.sum(products, 1))


@triton.jit
def coefficients_of(floats, job, row, known):
    """a, b, c (C,) of ∂u = a·g + b·(u - mean) + c, and the mean."""
    rows = number(job, OUT_CHANNELS)
    place = tl.load(job + COEFFICIENTS)
    a = per_channel(floats, place, row, known, 0.0)
    b = per_channel(floats, place + rows, row, known, 0.0)
    c = per_channel(floats, place + 2 * rows, row, known, 0.0)
    return a, b, c, per_channel(floats, tl.load(job + NORM), row, known, 0.0)


@triton.jit
def pool_grad(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (tiles, leaders, blocks of C): `grad_gathered` = Σ over members of a·g + b·(u - mean) + c.

    All members have the leader's u. A norm of running statistics has no b and c, and must not see u's NaN.
    """
    floats = buffers[1]
    tile = tl.program_id(0)
    leader = job_row(table, jobs, tl.program_id(1))
    height, width = number(leader, OUT_HEIGHT), number(leader, OUT_WIDTH)
    if tile * P < images * height * width:
        row = tl.program_id(2) * C + tl.arange(0, C)
        known = row < number(leader, OUT_CHANNELS)
        image, y, x, inside = tile_pixels(tile, images, height, width, P)
        u = rounded(pooled(bases, leader, row, image, y, x, inside, C, P), bases)
        result = tl.zeros([C, P], tl.float32)
        for index in range(number(leader, MEMBER_COUNT)):
            job = job_row(table, number(leader, MEMBERS), index)
            a, b, c, mean = coefficients_of(floats, job, row, known)
            result += a[:, None] * grad_block(bases, job, row, image, y, x, inside)
            if number(job, BATCH) != 0:
                result += b[:, None] * (u - mean[:, None]) + c[:, None]
        pointer, image_stride = view(bases, leader, GRAD_GATHERED)
        store_block(pointer, image_stride, result, row, known, image, y, x, inside, height, width)


@triton.jit
def unit_grad(bases, params, floats, job, row, image, y, x, inside, C_IN: constexpr, C_OUT: constexpr, P: constexpr):
    """∂u (C_OUT, P) = a·g + b·(u - mean) + c; 0 where the pixel is not inside."""
    a, b, c, mean = coefficients_of(floats, job, row, row < number(job, OUT_CHANNELS))
    result = a[:, None] * grad_block(bases, job, row, image, y, x, inside)
    if number(job, BATCH) != 0:
        u = kept_unit(bases, params, floats, job, row, image, y, x, inside, C_IN, C_OUT, P)
        result += b[:, None] * (u - mean[:, None]) + c[:, None]
    return tl.where(inside[None, :], result, 0.0)


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
            du = unit_grad(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P)
        for begin in range(0, columns, C_IN):
            channel = begin + tl.arange(0, C_IN)
            known = channel < columns
            dd = tl.zeros([C_IN, P], tl.float32)
            for above in range(0, rows, C):
                row = above + tl.arange(0, C)
                if not WHOLE:
                    du = unit_grad(bases, params, floats, job, row, image, y, x, inside, C_IN, C, P)
                at = row[:, None] * columns + channel[None, :]
                mask = (row < rows)[:, None] & known[None, :]
                weight = tl.load(weights + at, mask=mask, other=0.0)
                dd = tl.dot(tl.trans(weight), du, dd, input_precision="ieee")
                if place >= 0:
                    d = gathered(bases, params, floats, job, channel, image, y, x, inside, C_IN, P)
                    add_to(sums + at, tl.dot(du, tl.trans(d), input_precision="ieee"), mask, first)
            if exists(job, GRAD_GATHERED):
                pointer, image_stride = view(bases, job, GRAD_GATHERED)
                store_block(pointer, image_stride, dd, channel, known, image, y, x, inside, height, width)
            if (place >= 0) & (taps > 0):
                depthwise_sums(sums + rows * columns, first, bases, floats, job, dd, channel, image, y, x, inside)
        tl.debug_barrier()


@triton.jit
def hidden_back(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (tiles, jobs, blocks of C_in): g of the stage before = the transposed gather of ∂d where not x̂ ≤ 0.

    Its tile's sums are those of `grad_sums`; u is what the stage before has left, this job's input.
    """
    params, floats = buffers[0], buffers[1]
    tile = tl.program_id(0)
    job = job_row(table, jobs, tl.program_id(1))
    height, width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    if tile * P < images * height * width:
        channel = tl.program_id(2) * C + tl.arange(0, C)
        known = channel < number(job, IN_CHANNELS)
        image, y, x, inside = tile_pixels(tile, images, height, width, P)
        g = transposed(bases, params, job, channel, image, y, x, inside, C, P)
        mean, scale, shift = input_norm(floats, job, channel, known)
        centred = state_block(bases, job, channel, image, y, x, inside) - mean[:, None]
        g = rounded(tl.where(centred * scale[:, None] + shift[:, None] <= 0.0, 0.0, g), bases)
        before = table + tl.load(job + BEFORE) * JOB_COLUMNS
        pointer, image_stride = view(bases, before, GRAD)
        store_block(pointer, image_stride, g, channel, known, image, y, x, inside, height, width)
        products = tl.where(inside[None, :], g * centred, 0.0)
        store_sums(floats, before, tile, channel, known, tl.sum(g, 1), tl.sum(products, 1))


@triton.jit
def source_back(
    bases, buffers, table, jobs, count, state, images, channels, accumulate, P: constexpr, C_IN: constexpr, C: constexpr
):
    """Grid (tiles, 1, blocks of C): a state's gradient = what is given + Σ over the jobs that read it.

    Convolutions: the transposed gather of ∂d where not x ≤ 0; pools: their gradient back through the windows; the
    identity: α·g.
    """
    params = buffers[0]
    of = table + state
    own, height, width = number(of, STATE_CHANNELS), number(of, STATE_HEIGHT), number(of, STATE_WIDTH)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    known = channel < own
    image, y, x, inside = tile_pixels(tl.program_id(0), images, height, width, P)
    pointer, image_stride = view(bases, of, STATE_GIVEN)
    given = only_if(exists(of, STATE_GIVEN), known)
    result = load_block(pointer, image_stride, channel, given, image, y, x, inside, height, width)
    pointer, image_stride = view(bases, of, STATE_VALUE)
    value = load_block(pointer, image_stride, channel, known, image, y, x, inside, height, width)
    for index in range(count):
        job = job_row(table, jobs, index)
        kind = number(job, KIND)
        if kind == CONVOLUTION:
            grad = transposed(bases, params, job, channel, image, y, x, inside, C, P)
            result += tl.where(value <= 0.0, 0.0, grad)
        elif kind == IDENTITY:
            result += factor(params, job, ALPHA) * grad_block(bases, job, channel, image, y, x, inside)
        else:
            result += pool_transposed(bases, job, channel, image, y, x, inside, C, P)
    pointer, image_stride = view(bases, of, STATE_GRAD)
    store_block(pointer, image_stride, result, channel, known, image, y, x, inside, height, width)
