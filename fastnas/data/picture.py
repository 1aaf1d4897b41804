"""Image files, through Pillow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fastnas.errors import UserError

View = Callable[[Image.Image, tuple[int, int]], Image.Image]
"""Makes an image of a size (H, W), the second argument, of one of any size."""

_GREY_MODES = {"1", "L", "LA", "La"}
_DEEP_GREY = "I;16"
_TURNED = range(5, 9)


@dataclass(frozen=True)
class Kind:
    """Channels, 1 or 3, and size (H, W) in pixels, upright."""

    channels: int
    size: tuple[int, int]


def image_files(folder: Path) -> list[Path]:
    """The files in `folder` that by their names are images and not hidden, sorted."""
    return [file for file in visible(folder) if file.suffix.lower() in _suffixes() and file.is_file()]


def visible(folder: Path) -> list[Path]:
    """What is in `folder` and not hidden, sorted."""
    return sorted(child for child in folder.iterdir() if not child.name.startswith("."))


@lru_cache(maxsize=1)
def _suffixes() -> frozenset[str]:
    readable = Image.registered_extensions()
    return frozenset(suffix for suffix, form in readable.items() if form in Image.OPEN)


def inspect(file: Path) -> Kind:
    """What kind of image `file` is, by its header.

    Raises:
        UserError: it is no image that Pillow reads, or its pixels have no known range.
    """
    try:
        with Image.open(file) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            mode = image.mode
    except Exception as error:  # Pillow's plugins raise whatever their parsers do
        raise damaged(file, error) from error
    if mode in ("I", "F"):
        raise UserError(f"{file} has 32-bit pixels (Pillow's mode {mode!r}); expected 8 or 16 bits a pixel")
    grey = mode in _GREY_MODES or mode.startswith(_DEEP_GREY)
    return Kind(1 if grey else 3, (width, height) if turned else (height, width))


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image, scaled to cover `size` (H, W) and cut to it."""
    height, width = size
    return image if image.size == (width, height) else ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def read(file: Path, kind: Kind, view: View = cover) -> npt.NDArray[np.uint8]:
    """The pixels of `file` as (C, H, W): the first frame, upright, brought to `kind.size` by `view`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with Image.open(file) as opened:
            image = _eight_bit(ImageOps.exif_transpose(opened))
            image = image.convert("L" if kind.channels == 1 else "RGB")
            pixels = np.asarray(view(image, kind.size), dtype=np.uint8)
    except Exception as error:  # as above
        raise damaged(file, error) from error
    return pixels[None] if kind.channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(_DEEP_GREY):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def damaged(file: Path, error: Exception) -> UserError:
    """What to raise where Pillow fails to read `file`."""
    reason = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(f"{file} cannot be read as an image: {reason}")
