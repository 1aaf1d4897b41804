"""From one uint8 image with its labels to the network's input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from fastnas.data.augment import Normalize
from fastnas.data.segmentation.dataset import IGNORE


class WholeImages:
    """Validation: the image as it is, normalised."""

    def __init__(self, normalize: Normalize) -> None:
        self._normalize = normalize

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """(3, H, W) in float32 and labels (H, W) in int64."""
        return self._normalize(image, generator), labels.long()


class SegmentationAugment:
    """Training: random scaling, random crop, mirroring, normalisation, as in DeepLab (Chen et al., ECCV 2018).

    Args:
        normalize: of the pixels.
        crop: height and width of what is cut out. Where the scaled image is smaller it lies at random within the
            crop, surrounded by the mean colour, which is not labelled.
        scales: least and largest factor; each image gets one between, uniformly. (1, 1) for none.
        mirror: mirrors half of the images left to right.
    """

    def __init__(
        self, normalize: Normalize, crop: tuple[int, int], scales: tuple[float, float] = (0.5, 2.0), mirror: bool = True
    ) -> None:
        self._normalize, self._crop, self._scales, self._mirror = normalize, crop, scales, mirror

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The crop (3, *crop) in float32 and its labels in int64, of an image (3, H, W) and labels (H, W) in uint8."""
        factor, mirrored, *where = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        low, high = self._scales
        factor = low + factor * (high - low)
        spans = [_span(*line, factor) for line in zip(image.shape[1:], self._crop, where, strict=True)]
        pixels, classes = _window(image, labels, *spans)
        out = torch.zeros(3, *self._crop)
        target = torch.full(self._crop, IGNORE, dtype=torch.int64)
        inside = tuple(span.inside for span in spans)
        out[(slice(None), *inside)] = self._normalize(pixels, generator)
        target[inside] = classes.long()
        return (out.flip(2), target.flip(1)) if self._mirror and mirrored < 0.5 else (out, target)


class _Span(NamedTuple):
    """Along one side: which part of the image the crop shows, from `start` to `end` in the image's pixels and not
    rounded, and the pixels of the crop that show it."""

    start: float
    end: float
    inside: slice


def _span(length: int, crop: int, where: float, factor: float) -> _Span:
    """`where`, from 0 to 1, places the crop in an image of `length` scaled by `factor`, or that image in the crop."""
    scaled = max(1, round(length * factor))
    slack = abs(scaled - crop)
    offset = min(int(where * (slack + 1)), slack)
    if scaled < crop:
        return _Span(0.0, float(length), slice(offset, offset + scaled))
    return _Span(offset * length / scaled, (offset + crop) * length / scaled, slice(0, crop))


def _window(image: Tensor, labels: Tensor, rows: _Span, columns: _Span) -> tuple[Tensor, Tensor]:
    """Reads only the part that the crop shows; equal to scaling the whole image first but at the crop's border."""
    size = (columns.inside.stop - columns.inside.start, rows.inside.stop - rows.inside.start)
    box = (columns.start, rows.start, columns.end, rows.end)
    pixels = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    pixels = pixels.resize(size, Image.Resampling.BILINEAR, box)
    classes = Image.fromarray(labels.numpy()).resize(size, Image.Resampling.NEAREST, box)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1), torch.from_numpy(np.array(classes))
