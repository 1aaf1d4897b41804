"""Files of images and of their labels: what they are by their headers, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastnas.data.picture import Kind, damaged, inspect, read
from fastnas.data.segmentation.dataset import IGNORE
from fastnas.errors import UserError

# Pillow stretches grey levels of 2 and 4 bits to 0 … 255; a label is the number in the file.
_STRETCHED = {"L;2": 85, "L;4": 17}
_UNKNOWN = -1


class Labels:
    """What the numbers in label files stand for.

    Args:
        classes: the number that stands for each class, in the order of the classes.
        void: the numbers of pixels to ignore.
        expected: all of these in words, for who reads that a file has another.

    Attributes:
        count: how many classes there are.
    """

    def __init__(self, classes: Sequence[int], void: Sequence[int], expected: str) -> None:
        self.count, self._expected = len(classes), expected
        self._class_of = np.full(256, _UNKNOWN, np.int16)
        self._class_of[list(void)] = IGNORE
        self._class_of[list(classes)] = range(len(classes))

    def classes_in(self, file: Path) -> npt.NDArray[np.uint8]:
        """The class of each pixel of a label file, (H, W); IGNORE where it is void.

        Raises:
            UserError: the file is damaged, or has a number that stands for nothing.
        """
        numbers = _numbers(file)
        classes = self._class_of[numbers]
        if classes.min() == _UNKNOWN:
            row, column = np.argwhere(classes == _UNKNOWN)[0].tolist()
            raise UserError(
                f"{file} has label {numbers[row, column]} in row {row}, column {column}; expected {self._expected}"
            )
        return classes.astype(np.uint8)


@dataclass(frozen=True)
class Pair:
    """An image and the file of its labels.

    Attributes:
        image, labels: the files.
        size: H and W of both, in pixels.
    """

    image: Path
    labels: Path
    size: tuple[int, int]


def inspect_pair(image: Path, labels: Path) -> Pair:
    """Looks at the headers of both files.

    Raises:
        UserError: a file cannot be read, `labels` has colours instead of numbers, or their sizes differ.
    """
    size = inspect(image).size
    try:
        with Image.open(labels) as opened:
            mode, (width, height) = opened.mode, opened.size
    except Exception as error:  # Pillow's plugins raise whatever their parsers do
        raise damaged(labels, error) from error
    if mode not in ("1", "L", "P"):
        raise UserError(f"{labels} has pixels of Pillow's mode {mode!r}; expected one number a pixel, 8 bits or fewer")
    if (height, width) != size:
        raise UserError(f"{labels} is {width}x{height} pixels; expected {size[1]}x{size[0]} as its image {image}")
    return Pair(image, labels, size)


def read_image(pair: Pair, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The image as (3, H, W), brought to `size` with a triangle filter that covers every pixel.

    Raises:
        UserError: the file is damaged.
    """
    pixels = read(pair.image, Kind(3, pair.size))
    if size == pair.size:
        return pixels
    height, width = size
    scaled = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(scaled).transpose(2, 0, 1)


def read_labels(pair: Pair, meaning: Labels, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The classes as (H, W), brought to `size` by taking the nearest pixel.

    Raises:
        UserError: the file is damaged or has a number that stands for nothing.
    """
    classes = meaning.classes_in(pair.labels)
    if size == pair.size:
        return classes
    height, width = size
    return np.array(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST))


def largest_number(pair: Pair) -> int:
    """The largest number in a label file but IGNORE; -1 if there is no other."""
    numbers = _numbers(pair.labels)
    return int(np.where(numbers == IGNORE, -1, numbers.astype(np.int16)).max())


def _numbers(file: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            step = _STRETCHED.get(str(image.tile[0][3]), 1) if image.tile else 1
            return np.asarray(image).astype(np.uint8) // np.uint8(step)
    except Exception as error:  # as above
        raise damaged(file, error) from error
