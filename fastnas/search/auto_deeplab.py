"""Auto-DeepLab's search (Liu et al., CVPR 2019, §4.2): α, β and the weights descend in turn, first order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim

from fastnas.data import Normalize
from fastnas.data.segmentation import (
    IGNORE,
    SegmentationAugment,
    SegmentationBatches,
    SegmentationData,
    class_weights,
)
from fastnas.errors import UserError
from fastnas.nn import AutoDeepLabSupernet
from fastnas.search import processes
from fastnas.search.alphas import trellis_row
from fastnas.search.bilevel import frozen
from fastnas.search.device import device_of, on_device
from fastnas.search.launch import launched
from fastnas.search.loop import Report
from fastnas.search.pixel_score import PixelScore
from fastnas.search.run import Row
from fastnas.search.schedule import StepDescent
from fastnas.search.segmentation_config import SegmentationConfig, TrellisSearchConfig

_ADAM_BETAS = (0.9, 0.999)


class AutoDeepLabSearch:
    """Searches with a supernet.

    Args:
        network: the supernet; a step leaves the `requires_grad` of its parameters as it was.
        data: its training images are split into one half for the weights and one for α and β.
        config: with no option left open, see `fastnas.search.segmentation_driver.settle`.

    Raises:
        UserError: a half of the training images does not fill the batches of a step.
    """

    def __init__(self, network: AutoDeepLabSupernet, data: SegmentationData, config: TrellisSearchConfig) -> None:
        self.network, self._config = network, config
        self._weights, self._arch = network.weight_parameters(), network.arch_parameters()
        augment, size, share = training_augment(data, config), config.batch_size, launched().share
        self._batches = [
            SegmentationBatches(data.train, half, size, augment, True, config.seed, stream, config.workers, share)
            for stream, half in enumerate(data.halves(config.seed))
        ]
        if self.steps == 0:
            fewest = min(len(batches.indices) for batches in self._batches)
            raise UserError(
                f"--batch-size times --accumulate is {config.batch_size * config.accumulate}, more than the {fewest} "
                "images in half of the training set"
            )
        self.descent = StepDescent(self._weights, config, config.epochs * self.steps)
        self.adam = optim.Adam(self._arch, config.arch_lr, _ADAM_BETAS, weight_decay=config.arch_weight_decay)
        self._loss = PixelLoss(data, config, device_of(network))
        self._classes = data.classes

    @property
    def steps(self) -> int:
        """Steps in an epoch; each takes `accumulate` batches of one half or of both."""
        return min(len(batches) for batches in self._batches) // self._config.accumulate

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """One pass over the weights' half and, from `arch_start` on, over α's; `val` are the images of the latter."""
        processes.agree(self.network)
        self.network.train()
        device = device_of(self.network)
        train, val = PixelScore(self._classes, device), PixelScore(self._classes, device)
        searching = epoch >= (self._config.arch_start or 0)
        row: Row = {"lr": self.descent.lr, "arch_trained": searching}
        weight_batches, arch_batches = (on_device(batches.epoch(epoch), device) for batches in self._batches)
        for _ in range(self.steps):
            images = self.arch_step(arch_batches, val) if searching else 0
            images += self.weight_step(weight_batches, train)
            report(images, train.running("train") | (val.running("val") if searching else {}))
        figures = train.figures("train") | (val.figures("val") if searching else {})
        return {**row, **figures, **trellis_row(self.network.alphas, self.network.betas)}

    def arch_step(self, batches: Iterator[tuple[Tensor, Tensor]], score: PixelScore) -> int:
        """A step of Adam on α and β; no gradient of the weights is computed. Returns the number of images."""
        with frozen(self._weights):
            self.adam.zero_grad()
            count = self._accumulated(batches, score)
            processes.average_gradients(self._arch)
        self.adam.step()
        return count

    def weight_step(self, batches: Iterator[tuple[Tensor, Tensor]], score: PixelScore) -> int:
        """A step of SGD on the weights; no gradient of α and β is computed. Returns the number of images."""
        with frozen(self._arch):
            self.descent.begin()
            count = self._accumulated(batches, score)
        self.descent.step()
        return count

    def _accumulated(self, batches: Iterator[tuple[Tensor, Tensor]], score: PixelScore) -> int:
        return accumulate(self.network, batches, self._config.accumulate, self._loss, score)

    def state_dict(self) -> dict[str, Any]:
        """The supernet with α and β, and both optimisers."""
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


class PixelLoss:
    """Cross entropy of logits (N, K, H, W) and labels (N, H, W), void left out, mean over the labelled pixels.

    0 for a batch without any.
    """

    def __init__(self, data: SegmentationData, config: SegmentationConfig, device: torch.device | str = "cpu") -> None:
        self._weights = class_weights(data).to(device) if config.class_weights else None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if not bool((labels != IGNORE).any()):
            return logits.sum() * 0.0
        return F.cross_entropy(logits, labels, self._weights, ignore_index=IGNORE)


def accumulate(
    network: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], count: int, loss: PixelLoss, score: PixelScore
) -> int:
    """Adds up the gradients of the mean loss of `count` batches. Returns the number of images."""
    total = 0
    for _ in range(count):
        images, labels = next(batches)
        logits = network(images)
        value = loss(logits, labels)
        score.add(logits, labels, value)
        (value / count).backward()  # type: ignore[no-untyped-call]
        total += len(images)
    return total


def training_augment(data: SegmentationData, config: SegmentationConfig) -> SegmentationAugment:
    """Random scale, crop and mirroring of training images, as the options say."""
    crop, scales = (config.crop, config.crop), (config.scale_min, config.scale_max)
    return SegmentationAugment(Normalize(*data.statistics), crop, scales, config.mirror)
