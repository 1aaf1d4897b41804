"""The contract every source of images fulfils."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

_CHUNK = 1024
_SAMPLE = 4096


class ImageSplit(Dataset[Any]):
    """Labelled images of one size, read in batches.

    Attributes:
        labels: (N,), int64, an index into the data's classes.
        in_memory: reading is an indexing operation, so that worker processes would only cost.
    """

    labels: Tensor
    in_memory: bool

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Images (len(indices), C, H, W) in uint8 and labels: how torch's DataLoader fetches a batch."""

    def at(self, seed: int, stream: int, epoch: int) -> ImageSplit:
        """The images as that epoch sees them: these, unless they are read with something random."""
        return self


class TensorSplit(ImageSplit):
    """Images held as one tensor (N, C, H, W) in uint8."""

    in_memory = True

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(indices)
        return self.images[chosen], self.labels[chosen]


class Selection(ImageSplit):
    """Some images of a split: `indices` (n,), int64, say which."""

    def __init__(self, split: ImageSplit, indices: Tensor) -> None:
        self._split, self._indices = split, indices
        self.labels, self.in_memory = split.labels[indices], split.in_memory

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self._split.__getitems__(self._indices[indices].tolist())

    def at(self, seed: int, stream: int, epoch: int) -> ImageSplit:
        """The same of the split that they are from."""
        return Selection(self._split.at(seed, stream, epoch), self._indices)


@dataclass(frozen=True)
class ImageData:
    """A data set for classification.

    Attributes:
        name: what the user called it.
        classes: names, in the order of the labels.
        channels: 1 or 3.
        size: H and W in pixels.
        train, val: the two parts.
        mirrored: whether a mirrored image still belongs to its class.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    train: ImageSplit
    val: ImageSplit
    mirrored: bool = True

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of `train`, (C,) each, for pixels from 0 to 1.

        Exact where the images are in memory, otherwise of 4,096 images spread over the set. The sums are
        integers, so the result depends on neither the order nor the number of threads.
        """
        count = len(self.train) if self.train.in_memory else min(len(self.train), _SAMPLE)
        chosen = torch.arange(count) * len(self.train) // count
        total = torch.zeros(self.channels, dtype=torch.int64)
        squares = torch.zeros(self.channels, dtype=torch.int64)
        for chunk in torch.split(chosen, _CHUNK):
            images = self.train.__getitems__(chunk.tolist())[0].to(torch.int32)
            total += images.sum((0, 2, 3))
            squares += images.square().sum((0, 2, 3))
        pixels = count * self.size[0] * self.size[1]
        mean = total.double() / pixels
        deviation = (squares.double() / pixels - mean.square()).clamp_min(0).sqrt()
        # A channel without contrast would be divided by zero; one level is the least that uint8 can tell.
        return (mean / 255).float(), (deviation.clamp_min(1) / 255).float()

    def describe(self) -> dict[str, Any]:
        """What must agree between two runs on the same data."""
        return {
            "classes": list(self.classes),
            "channels": self.channels,
            "size": list(self.size),
            "train_images": len(self.train),
            "val_images": len(self.val),
        }
