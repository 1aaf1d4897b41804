"""Training of a found network from scratch, by the recipe of Liu et al., ICLR 2019, appendix A.2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.data import Augment, Batches, ImageData, Normalize
from fastnas.errors import UserError
from fastnas.nn import DartsNetwork
from fastnas.search.checkpoint import to_bytes
from fastnas.search.config import RetrainConfig
from fastnas.search.device import device_of, on_device
from fastnas.search.files import write_atomically
from fastnas.search.loop import Callback, Descent, Report, Score
from fastnas.search.run import Row


class Retraining:
    """Trains a derived network and validates it after every epoch.

    Args:
        network: built with an auxiliary head if `config.auxiliary`.
        data: all of its training images are trained on.
        config: with no option left open, see `fastnas.search.driver.settle`.

    Raises:
        UserError: the training images do not fill a batch.
    """

    def __init__(self, network: DartsNetwork, data: ImageData, config: RetrainConfig) -> None:
        self.network, self._config = network, config
        self.descent = Descent(network.parameters(), config, config.epochs)
        normalize = Normalize(*data.statistics)
        augment = Augment(normalize, config.padding or 0, bool(config.mirror), config.cutout or 0)
        everything, size, workers = torch.arange(len(data.train)), config.batch_size, config.workers
        self._train = Batches(data.train, everything, size, augment, True, config.seed, workers=workers)
        self._val = Batches(data.val, torch.arange(len(data.val)), size, normalize, shuffle=False, workers=workers)
        if self.steps == 0:
            raise UserError(f"--batch-size is {size}, more than the {len(data.train)} training images of {data.name}")

    @property
    def steps(self) -> int:
        """Training steps in an epoch."""
        return len(self._train)

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """One pass over the training images, then one over the validation images."""
        self.network.train()
        self.network.drop_path = self._config.drop_path * epoch / self._config.epochs
        score = Score()
        row: Row = {"lr": self.descent.lr}
        for images, labels in on_device(self._train.epoch(epoch), device_of(self.network)):
            self.descent.step(self._loss(images, labels, score))
            report(len(labels), score.figures("train"))
        self.descent.end_epoch()
        return {**row, **score.figures("train"), **self.validate()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and accuracy on the validation images, in evaluation mode."""
        self.network.eval()
        score = Score()
        for images, labels in on_device(self._val.epoch(0), device_of(self.network)):
            score.add(self.network(images), labels)
        return score.figures("val")

    def state_dict(self) -> dict[str, Any]:
        """The network and its optimiser."""
        return {"network": self.network.state_dict(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.descent.load_state_dict(state["descent"])

    def _loss(self, images: Tensor, labels: Tensor, score: Score) -> Tensor:
        smoothing = self._config.label_smoothing
        if not self._config.auxiliary:
            logits = self.network(images)
            score.add(logits, labels)
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        logits, auxiliary = self.network(images)
        score.add(logits, labels)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        extra = F.cross_entropy(auxiliary, labels, label_smoothing=smoothing)
        return loss + self._config.auxiliary_weight * extra


class BestWeights(Callback):
    """Keeps the state_dict of the first epoch that has the highest of a figure, a key of the history's rows."""

    def __init__(self, network: nn.Module, path: Path, figure: str) -> None:
        self._network, self._path, self._figure, self._best = network, path, figure, -1.0

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Knows the best epoch so far."""
        self._best = max((row[self._figure] for row in history), default=-1.0)

    def on_epoch(self, row: Row) -> None:
        """Writes the weights if they are better."""
        if row[self._figure] > self._best:
            self._best = row[self._figure]
            write_atomically(self._path, to_bytes(self._network.state_dict()))
