"""Images from PyTorch's datasets, for searches that begin in Python."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from fastnas.data.dataset import ImageData, TensorSplit
from fastnas.data.folder import IN_MEMORY_BYTES
from fastnas.errors import UserError

DATASETS = "datasets:"
_ONE_CHANNEL = {"1", "L"}


def from_datasets(train: Dataset[Any], val: Dataset[Any]) -> ImageData:
    """The images and labels of two datasets, read once into memory.

    Their name has a digest of all of them, so that a run is only gone on with on the same.

    Args:
        train, val: with a length; their items are pairs of an image and a label. An image is one of Pillow's, or uint8
            of shape (C, H, W) with C = 1 or 3; all have one size. A label is a whole number from 0 on. Names of the
            classes are taken from an attribute `classes` of `train`, which torchvision's datasets have.

    Raises:
        UserError: an item is something else, sizes differ, there are fewer than two classes, or it does not fit into
            memory; the message names the item.
    """
    parts = {part: _read(dataset, part) for part, dataset in (("train", train), ("val", val))}
    (x_train, y_train), (x_val, y_val) = parts["train"], parts["val"]
    if x_train.shape[1:] != x_val.shape[1:]:
        raise UserError(f"the images of train are {_shape(x_train[0])}, those of val {_shape(x_val[0])}")
    count = int(max(y_train.max(), y_val.max())) + 1
    classes = tuple(str(name) for name in getattr(train, "classes", range(count)))
    if not 2 <= count <= len(classes):
        raise UserError(
            f"labels reach from 0 to {count - 1}, with {len(classes)} classes; expected two or more, each named"
        )
    digest = hashlib.sha256(repr((classes, tuple(x_train.shape), tuple(x_val.shape))).encode())
    for tensor in (x_train, y_train, x_val, y_val):
        digest.update(tensor.numpy().data)
    size = (x_train.shape[2], x_train.shape[3])
    name = DATASETS + digest.hexdigest()[:16]
    return ImageData(name, classes, x_train.shape[1], size, TensorSplit(x_train, y_train), TensorSplit(x_val, y_val))


def _read(dataset: Any, part: str) -> tuple[Tensor, Tensor]:
    if not hasattr(dataset, "__len__") or not len(dataset):
        raise UserError(f"{part} is {type(dataset).__name__}; expected a dataset with a length, and images in it")
    images, labels = None, torch.empty(len(dataset), dtype=torch.int64)
    for i in range(len(dataset)):
        pixels, labels[i] = _item(dataset[i], f"{part}[{i}]")
        if images is None:
            if len(dataset) * pixels.size > IN_MEMORY_BYTES:
                raise UserError(f"{part} has more than {IN_MEMORY_BYTES >> 30} GiB of pixels; give a folder of images")
            images = torch.empty((len(dataset), *pixels.shape), dtype=torch.uint8)
        if pixels.shape != images.shape[1:]:
            raise UserError(f"{part}[{i}] is {_shape(pixels)}, {part}[0] is {_shape(images[0])}; expected one size")
        images[i] = torch.from_numpy(pixels)
    assert images is not None  # it has a length
    return images, labels


def _item(item: Any, where: str) -> tuple[npt.NDArray[np.uint8], int]:
    try:
        image, label = item
        number = int(label)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} is {type(item).__name__}; expected a pair of an image and a label") from error
    if number != label or number < 0:
        raise UserError(f"{where} has the label {label}; expected a whole number from 0 on")
    if isinstance(image, Image.Image):
        image = np.array(image.convert("L" if image.mode in _ONE_CHANNEL else "RGB"))
        image = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise UserError(
            f"{where} is {_shape(pixels)} in {pixels.dtype}; expected an image of Pillow, or 1 or 3×H×W in uint8: "
            "fastnas augments and normalises"
        )
    return np.ascontiguousarray(pixels), number


def _shape(image: Any) -> str:
    return "×".join(map(str, image.shape)) or "a number"
