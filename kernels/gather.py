"""What a job reads: d, the gather of its input; u, its product or pool; and a gather's transpose."""

import triton
import triton.language as tl
from triton.language import constexpr

from fastnas.kernels.columns import (
    DEPTHWISE,
    DILATION,
    GRAD_GATHERED,
    IN_CHANNELS,
    IN_HEIGHT,
    IN_WIDTH,
    INPUT,
    INPUT_NORM,
    KERNEL,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    POINTWISE,
    RESAMPLE,
    START,
    STRIDE,
)
from fastnas.kernels.pixels import corners, load_block
from fastnas.kernels.resample import resampled
from fastnas.kernels.rows import exists, number, only_if, per_channel, view


@triton.jit
def input_norm(floats, job, channel, known):
    """Mean, scale and shift (C,) of x̂ = (x - mean)·scale + shift, the job's input; 0, 1, 0 if that is a state."""
    norm = tl.load(job + INPUT_NORM)
    channels = number(job, IN_CHANNELS)
    there = only_if(norm >= 0, known)
    mean = per_channel(floats, norm, channel, there, 0.0)
    scale = per_channel(floats, norm + channels, channel, there, 1.0)
    shift = per_channel(floats, norm + 2 * channels, channel, there, 0.0)
    return mean, scale, shift


@triton.jit
def depthwise_weights(params, job, channel, known):
    """Where w[channel, tap 0] lies, and whether there is one; a convolution without has the weight 1."""
    taps = number(job, KERNEL) * number(job, KERNEL)
    return params + tl.load(job + DEPTHWISE) + channel * taps, only_if(exists(job, DEPTHWISE), known)


@triton.jit
def window(bases, floats, job, channel, known, image, y, x):
    """What the taps of output pixels (y, x) read: the first one's addresses (C, P) and place (P,); x̂'s norm."""
    height, width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    stride, start = number(job, STRIDE), number(job, START)
    y, x = stride * y + start, stride * x + start
    pointer, image_stride = view(bases, job, INPUT)
    at = corners(pointer, image_stride, channel, image, height * width) + (y * width + x)[None, :]
    mean, scale, shift = input_norm(floats, job, channel, known)
    return at, y, x, height, width, mean[:, None], scale[:, None], shift[:, None]


@triton.jit
def normed(window, known, inside, dy, dx):
    """x - mean and x̂ (C, P) at a tap that is (dy, dx) away from the first, and where that is in the image."""
    at, y, x, height, width, mean, scale, shift = window
    y, x = y + dy, x + dx
    inside = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    mask = known[:, None] & inside[None, :]
    centred = tl.load(at + (dy * width + dx), mask=mask, other=0.0).to(tl.float32) - mean
    return centred, centred * scale + shift, mask


@triton.jit
def rectified(window, known, inside, dy, dx):
    """ReLU(x̂) (C, P) at a tap that is (dy, dx) away from the first; 0 outside of the image."""
    _, value, mask = normed(window, known, inside, dy, dx)
    return tl.where(mask & ((value < 0.0) == 0), value, 0.0)


@triton.jit
def state_block(bases, job, channel, image, y, x, inside):
    """(C, P): the job's input as it is, at (y, x)."""
    height, width = number(job, IN_HEIGHT), number(job, IN_WIDTH)
    pointer, image_stride = view(bases, job, INPUT)
    known = channel < number(job, IN_CHANNELS)
    return load_block(pointer, image_stride, channel, known, image, y, x, inside, height, width)


@triton.jit
def gathered(
    bases, params, floats, job, channel, image, y, x, inside, C: constexpr, P: constexpr, RESAMPLING: constexpr
):
    """d (C, P), by taps or, where RESAMPLING says that there may be such jobs, by resampling; 0 where not inside."""
    if RESAMPLING and number(job, RESAMPLE) != 0:
        value = resampled(bases, job, channel, image, y, x, inside)
        d = tl.where(value < 0.0, 0.0, value)
    else:
        d = convolved(bases, params, floats, job, channel, image, y, x, inside, C, P)
    return d


@triton.jit
def convolved(bases, params, floats, job, channel, image, y, x, inside, C: constexpr, P: constexpr):
    """d (C, P) = Σ_tap w[:, tap]·ReLU(x̂) where the tap meets it; 0 where the pixel is not inside."""
    kernel, dilation = number(job, KERNEL), number(job, DILATION)
    known = channel < number(job, IN_CHANNELS)
    reads = window(bases, floats, job, channel, known, image, y, x)
    weights, weighed = depthwise_weights(params, job, channel, known)
    d = tl.zeros([C, P], tl.float32)
    for i in range(kernel):
        line = tl.zeros([C, P], tl.float32)  # by itself: short sums lose fewer bits
        for j in range(kernel):
            weight = tl.load(weights + i * kernel + j, mask=weighed, other=1.0)
            line += weight[:, None] * rectified(reads, known, inside, dilation * i, dilation * j)
        d += line
    return tl.where(inside[None, :], d, 0.0)


@triton.jit
def product(
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
    """u (C_OUT, P) = W[row]·d, over blocks of C_IN channels."""
    channels = number(job, IN_CHANNELS)
    known_row = (row >= 0) & (row < number(job, OUT_CHANNELS))
    weights = params + tl.load(job + POINTWISE)
    u = tl.zeros([C_OUT, P], tl.float32)
    for begin in range(0, channels, C_IN):
        channel = begin + tl.arange(0, C_IN)
        d = gathered(bases, params, floats, job, channel, image, y, x, inside, C_IN, P, RESAMPLING)
        mask = known_row[:, None] & (channel < channels)[None, :]
        weight = tl.load(weights + row[:, None] * channels + channel[None, :], mask=mask, other=0.0)
        u += tl.dot(weight, d, input_precision="ieee")
    return u


@triton.jit
def transposed(bases, params, job, channel, image, y, x, inside, C: constexpr, P: constexpr):
    """(C, P): the gradient of ReLU(x̂) at input pixels (y, x) = Σ_tap w[:, tap]·∂d where the tap comes from."""
    kernel, height, width = number(job, KERNEL), number(job, OUT_HEIGHT), number(job, OUT_WIDTH)
    stride, dilation, start = number(job, STRIDE), number(job, DILATION), number(job, START)
    known = channel < number(job, IN_CHANNELS)
    pointer, image_stride = view(bases, job, GRAD_GATHERED)
    planes = corners(pointer, image_stride, channel, image, height * width)
    weights, weighed = depthwise_weights(params, job, channel, known)
    result = tl.zeros([C, P], tl.float32)
    for tap in range(kernel * kernel):
        dy, dx = start + dilation * (tap // kernel), start + dilation * (tap % kernel)
        row, column, there = met_by(y - dy, x - dx, inside, stride, height, width)
        mask = known[:, None] & there[None, :]
        grad = tl.load(planes + (row * width + column)[None, :], mask=mask, other=0.0).to(tl.float32)
        result += tl.load(weights + tap, mask=weighed, other=1.0)[:, None] * grad
    return result


@triton.jit
def met_by(y, x, inside, stride, height, width):
    """Output pixels that `stride` takes to (y, x), and whether there are such."""
    row, column = y // stride, x // stride
    there = inside & (y >= 0) & (row * stride == y) & (row < height)
    return row, column, there & (x >= 0) & (column * stride == x) & (column < width)
