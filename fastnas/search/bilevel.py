"""Searching with a supernet (DARTS, Liu et al., ICLR 2019, algorithm 1): α and weights descend in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from fastnas.data import Augment, Batches, ImageData, Normalize, halves
from fastnas.errors import UserError
from fastnas.nn import DartsSupernet
from fastnas.search import processes
from fastnas.search.alphas import alpha_row
from fastnas.search.config import SearchConfig
from fastnas.search.device import device_of, find_device, on_device
from fastnas.search.launch import launched
from fastnas.search.loop import Descent, Report, Score
from fastnas.search.run import Row

if TYPE_CHECKING:
    from fastnas.search.strategies.darts import Darts

Batch = tuple[Tensor, Tensor]
"""Images (N, C, H, W) in float32 and labels (N,)."""

_ADAM_BETAS = (0.5, 0.999)


class BilevelSearch:
    """Searches with a supernet.

    Args:
        strategy: what is particular to the search.
        network: the supernet, which goes to the run's device; a step leaves the `requires_grad` of its
            parameters as it was.
        data: its training images are split into one half for the weights and one for α.
        config: with no option left open, see `fastnas.search.driver.settle`.

    Raises:
        UserError: a half of the training images does not fill a batch.
    """

    def __init__(self, strategy: Darts[Any], network: DartsSupernet, data: ImageData, config: SearchConfig) -> None:
        self.strategy, self.epoch = strategy, 0
        self.network = network.to(find_device(config.device))
        self.weights, self.alphas = network.weight_parameters(), network.arch_parameters()
        self.descent = Descent(self.weights, config, config.epochs)
        self.adam = optim.Adam(self.alphas, config.alpha_lr, _ADAM_BETAS, weight_decay=config.alpha_weight_decay)
        augment = Augment(Normalize(*data.statistics), config.padding or 0, bool(config.mirror), config.cutout)
        share = launched().share
        self._batches = [
            Batches(data.train, half, config.batch_size, augment, True, config.seed, stream, config.workers, share)
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
        processes.agree(self.network)
        self.network.train()
        self.epoch = epoch
        self.strategy.begin_epoch(self, epoch)
        searches = self.strategy.searches(epoch)
        train, val = Score(), Score()
        row: Row = {"lr": self.descent.lr}
        device = device_of(self.network)
        weight_batches, alpha_batches = (on_device(batches.epoch(epoch), device) for batches in self._batches)
        for _, weight_batch in zip(range(self.steps), weight_batches, strict=False):
            images, figures = len(weight_batch[1]), {}
            if searches:
                alpha_batch = next(alpha_batches)
                self.alpha_step(alpha_batch, weight_batch, val)
                images += len(alpha_batch[1])
                figures = val.running("val")
            self.weight_step(weight_batch, train)
            report(images, train.running("train") | figures)
        self.descent.end_epoch()
        figures = train.figures("train") | (val.figures("val") if searches else {})
        return {**row, **figures, **alpha_row(self.network)}

    def alpha_step(self, val: Batch, train: Batch, score: Score) -> None:
        """A step of Adam on α along the strategy's gradient; `train` is the batch of the weights' next step."""
        self.adam.zero_grad()
        self.strategy.alpha_gradient(self, val, train, score)
        processes.average_gradients(self.alphas)
        self.adam.step()

    def alpha_loss(self, batch: Batch, score: Score) -> Tensor:
        """The loss that α descends: cross entropy and the strategy's penalty."""
        alphas: list[Tensor] = [self.network.alphas_normal, self.network.alphas_reduce]
        return self.loss(batch, score) + self.strategy.penalty(alphas, self.epoch)

    def weight_step(self, batch: Batch, score: Score) -> None:
        """A step of SGD on the weights; no gradient of α is computed."""
        with frozen(self.alphas):
            self.descent.step(self.loss(batch, score))

    def loss(self, batch: Batch, score: Score | None = None) -> Tensor:
        """Mean cross entropy of a batch, counted by `score`."""
        images, labels = batch
        logits = self.network(images)
        if score is not None:
            score.add(logits, labels)
        return F.cross_entropy(logits, labels)

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


@contextmanager
def shifted(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], distance: float) -> Iterator[None]:
    """Moves `parameters` by `distance` times `direction` inside the block, and back to the same bits after it."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            torch._foreach_add_(list(parameters), list(direction), alpha=distance)
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), before)
