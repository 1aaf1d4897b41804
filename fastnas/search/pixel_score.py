"""How well the pixels of an epoch are classified."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from fastnas.data.segmentation import IGNORE
from fastnas.errors import UserError
from fastnas.search.segmentation_eval import SegmentationScore


class PixelScore:
    """Mean loss of an epoch's batches, share of labelled pixels that are right, and mean intersection over union."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._matrix = MulticlassConfusionMatrix(len(classes), ignore_index=IGNORE, validate_args=False)
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

    def figures(self, part: str) -> dict[str, float]:
        """`{part}_loss`, `{part}_accuracy` of pixels and `{part}_miou`, the last two from 0 to 1; 0 without a label."""
        score = SegmentationScore(self._classes, self._matrix.confmat)
        shares = {f"{part}_accuracy": score.pixel_accuracy, f"{part}_miou": score.mean_iou}
        known = {name: 0.0 if math.isnan(share) else share for name, share in shares.items()}
        return {f"{part}_loss": self._loss / self._batches, **known}
