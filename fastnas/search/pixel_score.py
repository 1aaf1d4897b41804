"""How well the pixels of an epoch are classified."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fastnas.data.segmentation import IGNORE
from fastnas.errors import UserError
from fastnas.search import processes
from fastnas.search.segmentation_eval import SegmentationScore


class PixelScore:
    """Mean loss of an epoch's batches, share of labelled pixels that are right, and mean intersection over union.

    Each process counts its own batches.
    """

    def __init__(self, classes: tuple[str, ...], device: torch.device | str = "cpu") -> None:
        self._classes = classes
        self._matrix = MulticlassConfusionMatrix(len(classes), ignore_index=IGNORE, validate_args=False).to(device)
        self._loss, self._batches = 0.0, 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Counts a batch: logits (N, K, H, W), labels (N, H, W), its mean loss.

        Raises:
            UserError: the loss is not finite.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"training diverged: the loss became {value}; try a lower --lr, or --grad-clip")
        self._loss += value
        self._batches += 1
        self._matrix.update(logits.detach().argmax(1), labels)

    def running(self, part: str) -> dict[str, float]:
        """`{part}_loss` and `{part}_accuracy` of pixels, from 0 to 1, of this process: what a step shows."""
        return self._figures(part, self._loss, self._batches, SegmentationScore(self._classes, self._matrix.confmat))

    def figures(self, part: str) -> dict[str, float]:
        """The same of all processes, and `{part}_miou`, from 0 to 1."""
        loss, batches = processes.total(torch.tensor([self._loss, self._batches], dtype=torch.float64)).tolist()
        score = SegmentationScore(self._classes, processes.total(self._matrix.confmat))
        return {**self._figures(part, loss, batches, score), f"{part}_miou": _known(score.mean_iou)}

    @staticmethod
    def _figures(part: str, loss: float, batches: float, score: SegmentationScore) -> dict[str, float]:
        return {f"{part}_loss": loss / batches, f"{part}_accuracy": _known(score.pixel_accuracy)}


def _known(share: float) -> float:
    """0 where there is no label."""
    return 0.0 if math.isnan(share) else share
