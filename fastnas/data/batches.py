"""The order in which a training set is read: a pure function of the seed, the stream and the epoch.

So an interrupted run needs no state of its loaders to go on with the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.random import SeedSequence
from torch import Generator, Tensor
from torch.utils.data import BatchSampler, DataLoader

from fastnas.data.dataset import ImageSplit
from fastnas.errors import UserError


@dataclass(frozen=True)
class Batches:
    """Reads some images of a split in batches, once an epoch.

    Attributes:
        split: where the images are.
        indices: which of them, (n,), int64.
        batch_size: images a batch.
        transform: makes float32 input of uint8 images, with a generator for what is random in it.
        shuffle: a new order each epoch, no incomplete last batch; otherwise all images in the order of
            `indices`.
        seed, stream: two sets of batches with the same seed and another stream are independent.
        workers: processes that read ahead; only used where images are not in memory.
        share: which part of every batch is read, from 0, and of how many, which divide `batch_size`; the parts follow
            one order, and each draws by itself what is random about its images. Not shuffled, every so many-th batch.
    """

    split: ImageSplit
    indices: Tensor
    batch_size: int
    transform: Callable[[Tensor, Generator], Tensor]
    shuffle: bool = True
    seed: int = 0
    stream: int = 0
    workers: int = 0
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return len(self._parts(self.indices))

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: images (n, C, H, W) in float32 and labels (n,)."""
        generator = epoch_generator(self.seed, self.stream, epoch)
        order = self.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        part, count = self.share
        if count > 1:
            generator = epoch_generator(self.seed, self.stream, epoch, 1 + part)
        loader: DataLoader[Any] = DataLoader(
            self.split.at(self.seed, self.stream, epoch),
            batch_sampler=self._parts(order),
            collate_fn=as_read,
            num_workers=0 if self.split.in_memory else self.workers,
            generator=Generator(),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels = batch
            yield self.transform(images, generator), labels

    def _parts(self, order: Tensor) -> list[list[int]]:
        part, count = self.share
        size = self.batch_size // count if self.shuffle else self.batch_size
        whole = len(order) // self.batch_size * self.batch_size if self.shuffle else len(order)
        return list(BatchSampler(order[:whole].tolist(), size, drop_last=False))[part::count]


def epoch_generator(seed: int, stream: int, epoch: int, *more: int) -> Generator:
    """For all that is random in an epoch; independent of that of any other seed, stream, epoch, or positive `more`."""
    state = SeedSequence((seed, stream, epoch, *more)).generate_state(1, dtype="uint64")
    return Generator().manual_seed(int(state[0]) >> 1)


def as_read(batch: Any) -> Any:
    """Collates nothing: the reader returns whole batches."""
    return batch


def halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Splits a set at random into two disjoint halves, each class as evenly as its number allows.

    Args:
        labels: (N,), int64.
        seed: another seed gives other halves.

    Returns:
        Indices of the first ⌈N/2⌉ and the other ⌊N/2⌋ images.
    """
    shuffled = torch.randperm(len(labels), generator=Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    return by_class[0::2], by_class[1::2]
