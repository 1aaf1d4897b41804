"""Training of a found network from scratch, by the recipe of Liu et al., ICLR 2019, appendix A.2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastnas.data import Augment, Batches, ImageData, Normalize
from fastnas.errors import UserError
from fastnas.nn import DartsNetwork
from fastnas.search import processes
from fastnas.search.checkpoint import to_bytes
from fastnas.search.config import RetrainConfig
from fastnas.search.device import device_of, on_device
from fastnas.search.files import write_atomically
from fastnas.search.launch import launched
from fastnas.search.loop import Callback, Descent, Report, Score
from fastnas.search.run import Row


class Retraining:
    """Trains a derived network and validates it after every epoch.

    Args:
        network: built with an auxiliary head if `config.auxiliary`.
        data: all of its training images are trained on.
        config: with no option left open, see `fastnas.search.driver.settle`.

    Attributes:
        network: whose weights are validated and kept: what is trained, or with `config.ema` the mean of it.

    Raises:
        UserError: the training images do not fill a batch.
    """

    network: DartsNetwork

    def __init__(self, network: DartsNetwork, data: ImageData, config: RetrainConfig) -> None:
        self._trained, self._config = network, config
        self._mean = None if config.ema is None else _mean_of(network, config.ema)
        self.network = network if self._mean is None else cast(DartsNetwork, self._mean.module)
        scaler = GradScaler(device_of(network).type, enabled=config.precision == "float16")
        self.descent = Descent(network.parameters(), config, config.epochs, scaler, config.lr_decay)
        normalize = Normalize(*data.statistics)
        augment = Augment(normalize, config.padding or 0, bool(config.mirror), config.cutout or 0)
        everything, size = torch.arange(len(data.train)), config.batch_size
        shared: dict[str, Any] = {"workers": config.workers, "share": launched().share}
        self._train = Batches(data.train, everything, size, augment, True, config.seed, **shared)
        self._val = Batches(data.val, torch.arange(len(data.val)), size, normalize, shuffle=False, **shared)
        if self.steps == 0:
            raise UserError(f"--batch-size is {size}, more than the {len(data.train)} training images of {data.name}")

    @property
    def steps(self) -> int:
        """Training steps in an epoch."""
        return len(self._train)

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """One pass over the training images, then one over the validation images."""
        processes.agree(self._trained)
        self._trained.train()
        self._trained.drop_path = self._config.drop_path * epoch / self._config.epochs
        score = Score()
        row: Row = {"lr": self.descent.lr}
        for images, labels in on_device(self._train.epoch(epoch), device_of(self.network)):
            self.descent.step(self._loss(images, labels, score))
            if self._mean is not None:
                self._mean.update_parameters(self._trained)
            report(len(labels), score.running("train"))
        self.descent.end_epoch()
        return {**row, **score.figures("train"), **self.validate()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and accuracy on the validation images, in evaluation mode; each process takes its share."""
        processes.agree(self.network)
        self.network.eval()
        score = Score()
        for images, labels in on_device(self._val.epoch(0), device_of(self.network)):
            score.add(self._logits(self.network, images)[0], labels)
        return score.figures("val")

    def state_dict(self) -> dict[str, Any]:
        """The network, its optimiser, and the mean if there is one."""
        mean = {} if self._mean is None else {"mean": self._mean.state_dict()}
        return {"network": self._trained.state_dict(), "descent": self.descent.state_dict(), **mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._trained.load_state_dict(state["network"])
        self.descent.load_state_dict(state["descent"])
        if self._mean is not None:
            self._mean.load_state_dict(state["mean"])

    def _loss(self, images: Tensor, labels: Tensor, score: Score) -> Tensor:
        logits = self._logits(self._trained, images)
        score.add(logits[0], labels)
        losses = [F.cross_entropy(each, labels, label_smoothing=self._config.label_smoothing) for each in logits]
        return losses[0] if len(losses) == 1 else losses[0] + self._config.auxiliary_weight * losses[1]

    def _logits(self, network: DartsNetwork, images: Tensor) -> list[Tensor]:
        """In float32; those of an auxiliary head come second."""
        dtype = getattr(torch, self._config.precision)
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            out = network(images)
        return [logits.float() for logits in (out if isinstance(out, tuple) else (out,))]


def _mean_of(network: DartsNetwork, decay: float) -> AveragedModel:
    """What follows the network's weights and running statistics; the first step sets it."""
    step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=step, use_buffers=True)


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
