"""Images with a class for every pixel: docs/segmentation-data.md."""

from fastnas.data.segmentation.augment import SegmentationAugment, WholeImages
from fastnas.data.segmentation.batches import SegmentationBatches
from fastnas.data.segmentation.dataset import IGNORE, SegmentationData, SegmentationSplit, class_weights
from fastnas.data.segmentation.sources import load_segmentation

__all__ = [
    "IGNORE",
    "SegmentationAugment",
    "SegmentationBatches",
    "SegmentationData",
    "SegmentationSplit",
    "WholeImages",
    "class_weights",
    "load_segmentation",
]
