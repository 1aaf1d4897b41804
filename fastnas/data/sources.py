"""Finds the images that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastnas.data.dataset import ImageData, TensorSplit
from fastnas.data.datasets import DATASETS
from fastnas.data.folder import Augmentation, load_folder
from fastnas.errors import UserError

_CIFAR10 = "cifar10:"


def load_data(source: str, image_size: int | None = None, augment: Augmentation = "cifar") -> ImageData:
    """The images that `source` names, all checked.

    Args:
        source: "digits", "cifar10:PATH", or a folder with train/<class>/* and val/<class>/* (docs/data.md).
        image_size: side in pixels to which the images of a folder are brought.
        augment: how its training images vary, see `load_folder`.

    Raises:
        UserError: the images are not there, or cannot be used; the message says which and why.
    """
    if source.startswith(DATASETS):
        raise UserError(f"the images {source} were given by a Python program; give them again there, or name others")
    if source != "digits" and not source.startswith(_CIFAR10):
        return load_folder(Path(source), image_size, augment)
    if image_size is not None:
        raise UserError(f"--image-size {image_size} is for folders of images; {source} has one size already")
    return _digits() if source == "digits" else _cifar10(Path(source.removeprefix(_CIFAR10)))


def _digits() -> ImageData:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, labels = load_digits(return_X_y=True)
    images = np.rint(scans.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    parts = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    x_train, x_val, y_train, y_val = map(torch.from_numpy, parts)
    return ImageData(
        name="digits",
        classes=tuple("0123456789"),
        channels=1,
        size=(8, 8),
        train=TensorSplit(x_train, y_train.long()),
        val=TensorSplit(x_val, y_val.long()),
        mirrored=False,
    )


def _cifar10(root: Path) -> ImageData:
    try:
        from torchvision.datasets import CIFAR10
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"{_CIFAR10}{root} needs torchvision, which fails ({error}): pip install 'fastnas[cifar10]'"
        ) from error
    train, classes = _cifar10_part(CIFAR10, root, train=True)
    val, _ = _cifar10_part(CIFAR10, root, train=False)
    return ImageData(f"cifar10:{root}", classes, 3, (32, 32), train, val)


def _cifar10_part(dataset: Any, root: Path, train: bool) -> tuple[TensorSplit, tuple[str, ...]]:
    try:
        part = dataset(str(root), train=train, download=False)
    except RuntimeError as error:
        raise UserError(
            f"{root} does not hold CIFAR-10's files; expected the folder cifar-10-batches-py in it, undamaged"
        ) from error
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return TensorSplit(images, torch.tensor(part.targets)), tuple(part.classes)
