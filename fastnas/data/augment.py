"""From uint8 images to the network's input, a whole batch at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


class Normalize:
    """Subtracts the mean of each channel and divides by its deviation.

    Args:
        mean, deviation: (C,), for pixels from 0 to 1.
    """

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        self._shift = 255 * mean.view(-1, 1, 1)
        self._scale = 1 / (255 * deviation.view(-1, 1, 1))

    def __call__(self, images: Tensor, _: Generator) -> Tensor:
        """(N, C, H, W) in float32 of images in uint8."""
        return images.sub(self._shift).mul_(self._scale)


class Augment:
    """The training augmentation of DARTS (Liu et al., ICLR 2019): random crop, mirroring,
    normalisation, cutout.

    Args:
        normalize: applied between mirroring and cutout.
        padding: black pixels around the image, of which a random crop cuts the original size; 0 for
            no crop.
        mirror: mirrors half of the images left to right.
        cutout: side in pixels of the square set to the mean, clipped at the border (DeVries and
            Taylor, 2017); 0 for none.
    """

    def __init__(self, normalize: Normalize, padding: int, mirror: bool, cutout: int) -> None:
        self._normalize, self._padding, self._mirror, self._cutout = normalize, padding, mirror, cutout

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """(N, C, H, W) in float32 of images in uint8; each image has its own crop, mirroring and cutout."""
        if self._padding:
            images = _crop(images, self._padding, generator)
        if self._mirror:
            chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
            images = torch.where(chosen, images.flip(3), images)
        out = self._normalize(images, generator)
        return _cut_out(out, self._cutout, generator) if self._cutout else out


def _crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = torch.randint(2 * padding + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, rows, columns]


def _cut_out(images: Tensor, side: int, generator: Generator) -> Tensor:
    count, _, height, width = images.shape
    rows = _interval(height, side, count, generator).view(count, 1, height, 1)
    columns = _interval(width, side, count, generator).view(count, 1, 1, width)
    return images.masked_fill_(rows & columns, 0.0)


def _interval(length: int, side: int, count: int, generator: Generator) -> Tensor:
    start = torch.randint(length, (count, 1), generator=generator) - side // 2
    position = torch.arange(length)
    return (position >= start) & (position < start + side)
