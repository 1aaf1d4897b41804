"""Addressing: tiles of pixels that are counted through the batch, and blocks (C, P) of channels by such pixels."""

import triton
import triton.language as tl
from triton.language import constexpr


@triton.jit
def tile_pixels(tile, images, height, width, P: constexpr):
    """Pixel q of the batch is (y, x) of image q / (H·W); beyond the last one `inside` is false. Each is (P,)."""
    area = height * width
    pixel = tile * P + tl.arange(0, P)
    image = pixel // area
    rest = pixel - image * area
    y = rest // width
    return image, y, rest - y * width, pixel < images * area


@triton.jit
def corners(pointer, image_stride, channel, image, area):
    """(C, P): where the plane of a channel in a pixel's image begins. Only this takes 64 bits."""
    return pointer + (image.to(tl.int64) * image_stride)[None, :] + (channel * area)[:, None]


@triton.jit
def load_block(pointer, image_stride, channel, known, image, y, x, inside, height, width):
    """(C, P) as float32, 0 where the channel is not known or the pixel not inside."""
    at = corners(pointer, image_stride, channel, image, height * width) + (y * width + x)[None, :]
    return tl.load(at, mask=known[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_block(pointer, image_stride, value, channel, known, image, y, x, inside, height, width):
    """Rounds (C, P) to T and stores what is known and inside."""
    at = corners(pointer, image_stride, channel, image, height * width) + (y * width + x)[None, :]
    tl.store(at, value.to(pointer.dtype.element_ty), mask=known[:, None] & inside[None, :])


@triton.jit
def rounded(value, bases):
    """float32 rounded to what T can hold."""
    return value.to(bases[0].dtype.element_ty).to(tl.float32)
