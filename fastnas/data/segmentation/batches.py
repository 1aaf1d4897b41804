"""The order in which images with labels are read: a pure function of the seed, the stream and the epoch.

What is random about one image is a function of these and of its place in the order, so worker processes change nothing
and an interrupted run needs no state of its loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from fastnas.data.batches import as_read, epoch_generator
from fastnas.data.segmentation.dataset import SegmentationSplit
from fastnas.errors import UserError

Transform = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]
Task = tuple[int, int]  # an image's index, and the seed of what is random about it


@dataclass(frozen=True)
class SegmentationBatches:
    """Reads some images of a split in batches, once an epoch.

    Attributes:
        split: where the images are.
        indices: which of them, (n,), int64.
        batch_size: images a batch.
        transform: makes float32 input and int64 labels of an image and its labels; to one size, if `shuffle`.
        shuffle: a new order each epoch, no incomplete last batch; otherwise all images in the order of `indices`,
            those of one size in batches.
        seed, stream: two sets of batches with the same seed and another stream are independent.
        workers: processes that read ahead; only used where images are not in memory.
        share: as for `fastnas.data.Batches`; what is random about an image does not depend on it.
    """

    split: SegmentationSplit
    indices: Tensor
    batch_size: int
    transform: Transform
    shuffle: bool = True
    seed: int = 0
    stream: int = 0
    workers: int = 0
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        part, count = self.share
        return len(self._groups(self.indices.tolist())[part::count])

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: images (n, 3, H, W) in float32 and labels (n, H, W) in int64.

        Raises:
            UserError: a file has been damaged or changed since it was checked.
        """
        loader: DataLoader[Any] = DataLoader(
            _Reader(self.split, self.transform),
            batch_sampler=self._tasks(epoch),
            collate_fn=as_read,
            num_workers=0 if self.split.in_memory else self.workers,
            generator=Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def _tasks(self, epoch: int) -> list[list[Task]]:
        generator = epoch_generator(self.seed, self.stream, epoch)
        order = self.indices.tolist()
        if self.shuffle:
            order = [order[i] for i in torch.randperm(len(order), generator=generator)]
        seeds = iter(torch.randint(2**62, (len(order),), generator=generator).tolist())
        part, count = self.share
        return [[(index, next(seeds)) for index in group] for group in self._groups(order)][part::count]

    def _groups(self, order: list[int]) -> list[list[int]]:
        """What is read at once, by one process or another, in order."""
        size = self.batch_size
        if self.shuffle:
            same_size, size = [order[: len(order) // size * size]], size // self.share[1]
        else:
            same_size = [list(group) for _, group in groupby(order, lambda index: self.split.sizes[index])]
        return [run[i : i + size] for run in same_size for i in range(0, len(run), size)]


class _Reader(Dataset[Any]):
    """A file that cannot be read is returned as the `UserError` that names it, as `FileSplit` does."""

    def __init__(self, split: SegmentationSplit, transform: Transform) -> None:
        self._split, self._transform = split, transform

    def __getitems__(self, tasks: list[Task]) -> tuple[Tensor, Tensor] | UserError:
        try:
            pairs = [self._transform(*self._split[i], Generator().manual_seed(seed)) for i, seed in tasks]
        except UserError as error:
            return error
        images, labels = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(labels)
