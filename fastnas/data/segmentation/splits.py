"""Pairs of files as a split: decoded once if they fit into memory, otherwise whenever one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from fastnas.data.segmentation.dataset import SegmentationSplit
from fastnas.data.segmentation.pairs import Labels, Pair, read_image, read_labels

# Above this, training and validation images together are read from disk as they are needed.
IN_MEMORY_BYTES = 4 * 2**30
_BYTES_A_PIXEL = 4

T = TypeVar("T")
R = TypeVar("R")


class _FileSplit(SegmentationSplit):
    """Reads an image and its labels from their files whenever they are asked for."""

    in_memory = False

    def __init__(self, pairs: list[Pair], meaning: Labels, scale: float) -> None:
        self._pairs, self._meaning = pairs, meaning
        self.sizes = [scaled(pair.size, scale) for pair in pairs]
        self.counts = torch.stack(parallel(self._count, range(len(pairs))))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = read_image(self._pairs[index], self.sizes[index])
        return torch.from_numpy(image.copy()), self._labels(index)

    def _labels(self, index: int) -> Tensor:
        return torch.from_numpy(read_labels(self._pairs[index], self._meaning, self.sizes[index]))

    def _count(self, index: int) -> Tensor:
        return _count(self._labels(index), self._meaning.count)


class _MemorySplit(SegmentationSplit):
    """Holds every image and its labels."""

    in_memory = True

    def __init__(self, files: _FileSplit) -> None:
        self.sizes, self.counts = files.sizes, files.counts
        self._content = parallel(files.__getitem__, range(len(files)))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._content[index]


def open_splits(parts: Sequence[list[Pair]], meaning: Labels, scale: float) -> list[SegmentationSplit]:
    """A split of each part, with every label file read once.

    Raises:
        UserError: a file is damaged, or a label stands for nothing.
    """
    splits = [_FileSplit(pairs, meaning, scale) for pairs in parts]
    pixels = sum(height * width for split in splits for height, width in split.sizes)
    if pixels * _BYTES_A_PIXEL > IN_MEMORY_BYTES:
        return list(splits)
    return [_MemorySplit(split) for split in splits]


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """H and W times `scale`, rounded, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on each of `items`, in threads: Pillow decodes without Python's lock."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(work, items))


def _count(labels: Tensor, classes: int) -> Tensor:
    return torch.bincount(labels.flatten(), minlength=256)[:classes]
