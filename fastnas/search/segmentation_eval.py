"""How well a network segments: mean intersection over union, by DeepLab's protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.data.segmentation import IGNORE, SegmentationBatches
from fastnas.nn.deeplab_head import resize


@dataclass(frozen=True)
class SegmentationScore:
    """What was labelled and what was predicted.

    Attributes:
        classes: names.
        confusion: (K, K), int64; pixels of class i that were predicted as j.
    """

    classes: tuple[str, ...]
    confusion: Tensor

    @property
    def iou(self) -> Tensor:
        """Intersection over union of each class, (K,), float64; NaN where a class is neither labelled nor predicted."""
        hits = self.confusion.diagonal().double()
        return hits / (self.confusion.sum(0) + self.confusion.sum(1) - hits)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that are labelled or predicted; NaN if there is none."""
        return float(self.iou.nanmean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that were predicted right; NaN if no pixel is labelled."""
        return float(self.confusion.diagonal().sum().double() / self.confusion.sum())


def evaluate(
    network: nn.Module,
    batches: SegmentationBatches,
    classes: Sequence[str],
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] | None = None,
) -> SegmentationScore:
    """Segments every image of `batches` and counts; the network is in evaluation mode meanwhile.

    Args:
        network: maps (N, 3, H, W) to logits (N, K, H, W), and is on `device`.
        batches: the images, normalised as the network knows them: usually all of a split's, not shuffled, with
            `WholeImages` as their transform.
        classes: names of the K classes.
        scales, mirror: see `predict`.
        report: told the number of images after each batch.
    """
    from torchmetrics.classification import MulticlassConfusionMatrix

    matrix = MulticlassConfusionMatrix(len(classes), ignore_index=IGNORE, validate_args=False).to(device)
    training = network.training
    network.eval()
    try:
        for images, labels in batches.epoch(0):
            matrix.update(predict(network, images.to(device), scales, mirror), labels.to(device))
            if report is not None:
                report(len(images))
    finally:
        network.train(training)
    return SegmentationScore(tuple(classes), matrix.confmat.cpu())


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, scales: Sequence[float] = (1.0,), mirror: bool = False) -> Tensor:
    """The class of each pixel, (N, H, W) in int64, of images (N, 3, H, W).

    Each image is seen at every scale and, with `mirror`, also left to right; the logits are brought to the image's own
    size, and their softmax is averaged (Chen et al., DeepLabv3, 2017, §4.1).
    """
    size = (images.shape[2], images.shape[3])
    total = torch.zeros((), device=images.device)
    for scale in scales:
        seen = resize(images, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        total = total + _probabilities(network, seen, size)
        if mirror:
            total = total + _probabilities(network, seen.flip(3), size).flip(3)
    return total.argmax(1)


def _probabilities(network: nn.Module, images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.softmax(resize(network(images), size), 1)
