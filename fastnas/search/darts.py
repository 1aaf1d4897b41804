"""First-order DARTS (Liu et al., ICLR 2019, algorithm 1 with ξ = 0): α and weights descend in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, optim

from fastnas.data import Augment, Batches, ImageData, Normalize, halves
from fastnas.errors import UserError
from fastnas.nn import DartsSupernet
from fastnas.search.alphas import alpha_row
from fastnas.search.config import SearchConfig
from fastnas.search.loop import Descent, Report, Score
from fastnas.search.run import Row

_ADAM_BETAS = (0.5, 0.999)


class DartsSearch:
    """Searches with a supernet.

    Args:
        network: the supernet; a step leaves the `requires_grad` of its parameters as it was.
        data: its training images are split into one half for the weights and one for α.
        config: with no option left open, see `fastnas.search.driver.settle`.

    Raises:
        UserError: a half of the training images does not fill a batch.
    """

    def __init__(self, network: DartsSupernet, data: ImageData, config: SearchConfig) -> None:
        self.network = network
        self._weights, self._alphas = network.weight_parameters(), network.arch_parameters()
        self.descent = Descent(self._weights, config, config.epochs)
        self.adam = optim.Adam(self._alphas, config.alpha_lr, _ADAM_BETAS, weight_decay=config.alpha_weight_decay)
        augment = Augment(Normalize(*data.statistics), config.padding or 0, bool(config.mirror), config.cutout)
        self._batches = [
            Batches(data.train, half, config.batch_size, augment, True, config.seed, stream, config.workers)
            for stream, half in enumerate(halves(data.train.labels, config.seed))
        ]
        if self.steps == 0:
            fewest = min(len(batches.indices) for batches in self._batches)
            raise UserError(
                f"--batch-size is {config.batch_size}, more than the {fewest} images in half of the training set"
            )

    @property
    def steps(self) -> int:
        """Steps in an epoch; each takes a batch of both halves."""
        return min(len(batches) for batches in self._batches)

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """One pass over both halves. `val` are the images that α is trained on."""
        self.network.train()
        train, val = Score(), Score()
        row: Row = {"lr": self.descent.lr}
        weight_batches, alpha_batches = (batches.epoch(epoch) for batches in self._batches)
        for (images, labels), (val_images, val_labels) in zip(weight_batches, alpha_batches, strict=False):
            self.alpha_step(val_images, val_labels, val)
            self.weight_step(images, labels, train)
            figures = train.figures("train") | val.figures("val")
            report(len(labels) + len(val_labels), figures)
        self.descent.end_epoch()
        return {**row, **figures, **alpha_row(self._alphas)}

    def alpha_step(self, images: Tensor, labels: Tensor, score: Score) -> None:
        """A step of Adam on α; no gradient of the weights is computed."""
        with frozen(self._weights):
            logits = self.network(images)
            score.add(logits, labels)
            self.adam.zero_grad()
            F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        self.adam.step()

    def weight_step(self, images: Tensor, labels: Tensor, score: Score) -> None:
        """A step of SGD on the weights; no gradient of α is computed."""
        with frozen(self._alphas):
            logits = self.network(images)
            score.add(logits, labels)
            self.descent.step(F.cross_entropy(logits, labels))

    def state_dict(self) -> dict[str, Any]:
        """The supernet with α, and both optimisers."""
        return {
            "network": self.network.state_dict(),
            "descent": self.descent.state_dict(),
            "adam": self.adam.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.descent.load_state_dict(state["descent"])
        self.adam.load_state_dict(state["adam"])


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Asks for no gradient of `parameters` inside the block, and as before after it."""
    before = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
