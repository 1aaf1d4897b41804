"""The contract every source of images with labelled pixels fulfils."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

IGNORE = 255  # the label of pixels that are neither trained on nor counted
_SAMPLE = 512


class SegmentationSplit(Dataset[Any]):
    """Images with a class for every pixel; `split[i]` is the image (3, H, W) and its labels (H, W), both in uint8.

    Attributes:
        sizes: H and W of each image.
        counts: (N, K), int64: how many pixels of each class an image has.
        in_memory: reading is an indexing operation, so that worker processes would only cost.
    """

    sizes: list[tuple[int, int]]
    counts: Tensor
    in_memory: bool

    def __len__(self) -> int:
        return len(self.sizes)

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One image and its labels.

        Raises:
            UserError: a file has been damaged or changed since it was checked.
        """


@dataclass(frozen=True)
class SegmentationData:
    """A data set for semantic segmentation.

    Attributes:
        name: what the user called it.
        classes: names, in the order of the labels.
        palette: (K, 3), uint8, the colour of each class in pictures.
        train, val: the two parts.
        scale: what the files' height and width have been multiplied by.
    """

    name: str
    classes: tuple[str, ...]
    palette: Tensor
    train: SegmentationSplit
    val: SegmentationSplit
    scale: float = 1.0

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of `train`, (3,) each, for pixels from 0 to 1.

        Of 512 images spread over the set, or all of a smaller one. The sums are integers, so the result does not
        depend on the number of threads.
        """
        count = min(len(self.train), _SAMPLE)
        total, squares, pixels = torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 0
        for index in range(count):
            image = self.train[index * len(self.train) // count][0].flatten(1).to(torch.int32)
            total += image.sum(1)
            squares += image.square().sum(1)
            pixels += image.shape[1]
        mean = total.double() / pixels
        deviation = (squares.double() / pixels - mean.square()).clamp_min(0).sqrt()
        # A channel without contrast would be divided by zero; one level is the least that uint8 can tell.
        return (mean / 255).float(), (deviation.clamp_min(1) / 255).float()

    def halves(self, seed: int) -> tuple[Tensor, Tensor]:
        """Splits `train` at random, for a search that trains weights on one half and α, β on the other.

        Returns:
            Indices of the first ⌈N/2⌉ and the other ⌊N/2⌋ images, int64.
        """
        order = torch.randperm(len(self.train), generator=Generator().manual_seed(seed))
        return order[0::2], order[1::2]

    @property
    def size(self) -> tuple[int, int]:
        """H and W of the largest validation image."""
        return max(self.val.sizes, key=math.prod)

    def describe(self) -> dict[str, Any]:
        """What must agree between two runs on the same data."""
        return {
            "classes": list(self.classes),
            "scale": self.scale,
            "train_images": len(self.train),
            "val_images": len(self.val),
            "train_pixels": self.train.counts.sum(0).tolist(),
            "val_pixels": self.val.counts.sum(0).tolist(),
        }


def class_weights(data: SegmentationData) -> Tensor:
    """Weights of the classes for a loss that is not to be ruled by roads and skies: (K,), float32.

    Median frequency balancing (Eigen and Fergus, ICCV 2015): the weight of class c is median(f) / f(c), where f(c) is
    the share of c among the labelled pixels of those training images that show c. The median is over the classes that
    occur; one that does not has weight 0.
    """
    counts = data.train.counts
    labelled = counts.sum(1, keepdim=True).expand_as(counts)
    shown = counts > 0
    occurs = shown.any(0)
    share = counts.sum(0)[occurs].double() / torch.where(shown, labelled, 0).sum(0)[occurs]
    weights = torch.zeros(len(data.classes), dtype=torch.float64)
    weights[occurs] = share.quantile(0.5) / share
    return weights.float()
