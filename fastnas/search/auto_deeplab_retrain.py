"""Training of a segmentation network from scratch (Liu et al., CVPR 2019, §5.2)."""

from __future__ import annotations

from typing import Any

import torch

from fastnas.data import Normalize
from fastnas.data.segmentation import SegmentationBatches, SegmentationData, WholeImages
from fastnas.errors import UserError
from fastnas.nn import AutoDeepLabNetwork
from fastnas.search import processes
from fastnas.search.auto_deeplab import PixelLoss, accumulate, training_augment
from fastnas.search.device import device_of, on_device
from fastnas.search.launch import launched
from fastnas.search.loop import Report
from fastnas.search.pixel_score import PixelScore
from fastnas.search.run import Row
from fastnas.search.schedule import StepDescent
from fastnas.search.segmentation_config import TrellisRetrainConfig


class AutoDeepLabRetraining:
    """Trains a derived network and validates it on whole images after every epoch.

    Args:
        network: what is trained.
        data: all of its training images are trained on.
        config: with no option left open.

    Raises:
        UserError: the training images do not fill the batches of a step.
    """

    def __init__(self, network: AutoDeepLabNetwork, data: SegmentationData, config: TrellisRetrainConfig) -> None:
        self.network, self._config, self._data = network, config, data
        everything, share = torch.arange(len(data.train)), launched().share
        augment = training_augment(data, config)
        self._train = SegmentationBatches(
            data.train, everything, config.batch_size, augment, True, config.seed, workers=config.workers, share=share
        )
        self._val = SegmentationBatches(
            data.val,
            torch.arange(len(data.val)),
            1,
            WholeImages(Normalize(*data.statistics)),
            False,
            workers=config.workers,
            share=share,
        )
        if self.steps == 0:
            raise UserError(
                f"--batch-size times --accumulate is {config.batch_size * config.accumulate}, more than the "
                f"{len(data.train)} training images of {data.name}"
            )
        self.descent = StepDescent(network.parameters(), config, config.epochs * self.steps)
        self._loss = PixelLoss(data, config, device_of(network))

    @property
    def steps(self) -> int:
        """Training steps in an epoch."""
        return len(self._train) // self._config.accumulate

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """One pass over the training images, then one over the validation images."""
        processes.agree(self.network)
        self.network.train()
        self.network.drop_path = self._config.drop_path * epoch / self._config.epochs
        device = device_of(self.network)
        score = PixelScore(self._data.classes, device)
        row: Row = {"lr": self.descent.lr}
        batches = on_device(self._train.epoch(epoch), device)
        for _ in range(self.steps):
            self.descent.begin()
            count = accumulate(self.network, batches, self._config.accumulate, self._loss, score)
            self.descent.step()
            report(count, score.running("train"))
        return {**row, **score.figures("train"), **self.validate()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss, pixel accuracy and mIOU on the validation images, in evaluation mode; each process takes its share."""
        processes.agree(self.network)
        self.network.eval()
        device = device_of(self.network)
        score = PixelScore(self._data.classes, device)
        for images, labels in on_device(self._val.epoch(0), device):
            logits = self.network(images)
            score.add(logits, labels, self._loss(logits, labels))
        return score.figures("val")

    def state_dict(self) -> dict[str, Any]:
        """The network and its optimiser."""
        return {"network": self.network.state_dict(), "descent": self.descent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.descent.load_state_dict(state["descent"])
