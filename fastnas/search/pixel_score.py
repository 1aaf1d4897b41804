"""How well pixels are classified."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fastnas.data.segmentation import IGNORE
from fastnas.errors import UserError


class PixelScore:
    """Mean loss of an epoch's batches, share of labelled pixels that are right, and mean intersection over union."""

    def __init__(self, classes: int) -> None:
        self._confusion = MulticlassConfusionMatrix(classes, ignore_index=IGNORE, validate_args=False)
        self._loss, self._batches = 0.0, 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Counts a batch: logits (N, K, H, W), labels (N, H, W), its mean loss.

        Raises:
            UserError: the loss is not finite.
        """
        value = float(loss)
        if not math.isfinite(value):
            raise UserError(f"training diverged: the loss became {value}; try a lower --lr, or --grad-clip")
        self._loss += value
        self._batches += 1
        self._confusion.update(logits.detach().argmax(1), labels.long())

    def losses(self, part: str) -> dict[str, float]:
        """`{part}_loss` and `{part}_accuracy`, the latter from 0 to 1."""
        confusion = self._confusion.confmat
        right = float(confusion.diagonal().sum() / confusion.sum().clamp_min(1))
        return {f"{part}_loss": self._loss / self._batches, f"{part}_accuracy": right}

    def figures(self, part: str) -> dict[str, float]:
        """The same and `{part}_miou`: the mean over the classes that occur in labels or predictions."""
        return {**self.losses(part), f"{part}_miou": float(mean_iou(self._confusion.compute()))}
