"""Data sets as loaders with one contract: docs/data.md."""

from fastnas.data.augment import Augment, Normalize
from fastnas.data.batches import Batches, halves
from fastnas.data.dataset import ImageData, ImageSplit, TensorSplit
from fastnas.data.sources import load_data

__all__ = ["Augment", "Batches", "ImageData", "ImageSplit", "Normalize", "TensorSplit", "halves", "load_data"]
