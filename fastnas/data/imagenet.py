"""How ImageNet's images are seen, one by one through Pillow, as torchvision and the code of DARTS do."""

from __future__ import annotations

from functools import partial
from math import exp, log, sqrt

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

_AREA, _PROPORTION, _TRIES = (0.08, 1.0), 4 / 3, 10  # Szegedy et al., CVPR 2015, §6
_BORDER = (1 - 224 / 256) / 2  # of images scaled to 256, of which the middle 224 are kept
_STRENGTH, _HUE = 0.4, 0.2  # Liu et al., ICLR 2019, A.3, by their code


def middle(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of the image, 224/256 of its shorter side, at `size` (H, W): for validation."""
    return ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR, _BORDER)


def vary(image: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A random part of the image at `size` (H, W), brightness, contrast, saturation and hue changed: for training."""
    part = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, random_box(image.size, random))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    changes = [*(partial(_enhance, kind) for kind in kinds), _turn_hue]
    for i in random.permutation(len(changes)):
        part = changes[i](part, random)
    return part


def random_box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of 8 to 100 % of an image's area, 3:4 to 4:3; of its middle if none fits.

    `size` is the image's width and height.
    """
    for _ in range(_TRIES):
        area = size[0] * size[1] * random.uniform(*_AREA)
        proportion = exp(random.uniform(-log(_PROPORTION), log(_PROPORTION)))
        width, height = round(sqrt(area * proportion)), round(sqrt(area / proportion))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left, top = int(random.integers(size[0] - width + 1)), int(random.integers(size[1] - height + 1))
            return left, top, left + width, top + height
    width, height = (min(a, round(b * _PROPORTION)) for a, b in (size, size[::-1]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _enhance(
    kind: type[ImageEnhance.Brightness | ImageEnhance.Contrast | ImageEnhance.Color],
    image: Image.Image,
    random: np.random.Generator,
) -> Image.Image:
    return kind(image).enhance(random.uniform(1 - _STRENGTH, 1 + _STRENGTH))


def _turn_hue(image: Image.Image, random: np.random.Generator) -> Image.Image:
    turn = round(255 * random.uniform(-_HUE, _HUE))
    if image.mode == "L":  # grey has none
        return image
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda level: (level + turn) % 256), saturation, value)).convert("RGB")
