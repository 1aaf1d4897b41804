"""A folder of images, root/{train,val}/<class>/*, checked before anything is trained on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastnas.data.dataset import ImageData, ImageSplit, TensorSplit
from fastnas.data.imagenet import middle, vary
from fastnas.data.picture import Kind, View, cover, image_files, inspect, read, visible
from fastnas.errors import UserError

# Above this, images are read from disk as they are needed.
IN_MEMORY_BYTES = 4 * 2**30
_FILES_A_TASK = 64

Augmentation = Literal["cifar", "imagenet"]
"""How training images vary, see `load_folder`."""


class FileSplit(ImageSplit):
    """Images read from their files whenever they are asked for, as `view` shows them.

    A file that cannot be read is returned as the `UserError` that names it: raised in a worker process, it
    would arrive with the worker's traceback as its message.
    """

    in_memory = False

    def __init__(self, files: list[Path], labels: Tensor, kind: Kind, view: View = cover) -> None:
        self.files, self.labels, self.kind, self._view = files, labels, kind, view

    def view(self, index: int) -> View:
        """How an image is shown."""
        return self._view

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        try:
            images = np.stack([read(self.files[i], self.kind, self.view(i)) for i in indices])
        except UserError as error:
            return error  # type: ignore[return-value]
        return torch.from_numpy(images), self.labels[indices]


class VariedSplit(FileSplit):
    """Images that each epoch sees in another way, see `fastnas.data.imagenet.vary`; outside of one, their middle.

    What is random about an image is a function of the epoch, see `at`, and of its index.
    """

    def __init__(self, files: list[Path], labels: Tensor, kind: Kind, epoch: tuple[int, ...] = ()) -> None:
        super().__init__(files, labels, kind, middle)
        self._epoch = epoch

    def at(self, seed: int, stream: int, epoch: int) -> VariedSplit:
        """The images as that epoch sees them."""
        return VariedSplit(self.files, self.labels, self.kind, (seed, stream, epoch))

    def view(self, index: int) -> View:
        """How an image is shown."""
        return partial(vary, random=np.random.default_rng([*self._epoch, index])) if self._epoch else middle


def load_folder(root: Path, image_size: int | None, augment: Augmentation = "cifar") -> ImageData:
    """The images below `root`.

    Every file's header is read first, so wrong sizes are found before decoding; the pixels of all images are
    decoded now if they fit into memory, and later otherwise. If all images are grey they have one channel,
    otherwise three.

    Args:
        root: holds `train` and `val`, each with one folder per class.
        image_size: side in pixels; scales the shorter side to it and cuts the middle out of the longer. None
            takes images as they are.
        augment: "cifar" leaves it to `fastnas.data.Augment`; "imagenet", which needs `image_size`, shows random parts
            of training images in changed colours, and the middle of validation images, read from their files.

    Raises:
        UserError: a folder is missing or has no images, the classes of `train` and `val` differ or are fewer
            than two, a file is damaged, or sizes differ and `image_size` is None.
    """
    folders = {part: _classes(root, part) for part in ("train", "val")}
    _check_classes(root, set(folders["train"]), set(folders["val"]))
    classes = tuple(folders["train"])
    images = {part: [_images(folders[part][name]) for name in classes] for part in folders}
    files = {part: [file for group in groups for file in group] for part, groups in images.items()}
    counts = {part: torch.tensor([len(group) for group in groups]) for part, groups in images.items()}
    labels = {part: torch.arange(len(classes)).repeat_interleave(count) for part, count in counts.items()}
    kind = _common_kind(files["train"] + files["val"], image_size)
    if augment == "imagenet":
        varied = VariedSplit(files["train"], labels["train"], kind)
        return ImageData(
            str(root), classes, kind.channels, kind.size, varied, FileSplit(files["val"], labels["val"], kind, middle)
        )
    height, width = kind.size
    fits = len(files["train"] + files["val"]) * kind.channels * height * width <= IN_MEMORY_BYTES
    make: Callable[[list[Path], Tensor, Kind], ImageSplit] = _in_memory if fits else FileSplit
    train, val = (make(files[part], labels[part], kind) for part in ("train", "val"))
    return ImageData(str(root), classes, kind.channels, kind.size, train, val)


def _classes(root: Path, part: str) -> dict[str, Path]:
    if not root.exists():
        raise UserError(f"there is no folder {root}; --data takes a folder of images, digits or cifar10:PATH")
    folder = root / part
    if not folder.is_dir():
        raise UserError(f"{root} has no folder {part!r}; expected train/<class>/* and val/<class>/* in it")
    found = {child.name: child for child in visible(folder) if child.is_dir()}
    if not found:
        raise UserError(f"{folder} has no folder for any class; expected {folder}/<class>/*")
    return found


def _check_classes(root: Path, train: set[str], val: set[str]) -> None:
    for part, missing in (("val", train - val), ("train", val - train)):
        if missing:
            other = "train" if part == "val" else "val"
            raise UserError(f"{root}/{part} has no class {min(missing)!r}, which {root}/{other} has")
    if len(train) == 1:
        raise UserError(f"{root}/train has one class only ({min(train)!r}); a classifier needs at least two")


def _images(folder: Path) -> list[Path]:
    found = image_files(folder)
    if not found:
        raise UserError(f"class {folder.name!r} is empty: {folder} holds no image file that Pillow reads")
    return found


def _common_kind(files: list[Path], image_size: int | None) -> Kind:
    kinds = [inspect(file) for file in files]
    channels = max(kind.channels for kind in kinds)
    if image_size is not None:
        return Kind(channels, (image_size, image_size))
    for file, kind in zip(files, kinds, strict=True):
        if kind.size != kinds[0].size:
            raise UserError(
                f"images differ in size: {files[0]} is {_text(kinds[0])} pixels and {file} is {_text(kind)}; "
                f"resize them all with --image-size, for example --image-size 32"
            )
    return Kind(channels, kinds[0].size)


def _text(kind: Kind) -> str:
    return f"{kind.size[1]}x{kind.size[0]}"


def _in_memory(files: list[Path], labels: Tensor, kind: Kind) -> TensorSplit:
    images = torch.empty((len(files), kind.channels, *kind.size), dtype=torch.uint8)
    target = images.numpy()

    def read_some(start: int) -> None:
        for i in range(start, min(start + _FILES_A_TASK, len(files))):
            target[i] = read(files[i], kind)

    with ThreadPoolExecutor() as pool:
        deque(pool.map(read_some, range(0, len(files), _FILES_A_TASK)), maxlen=0)
    return TensorSplit(images, labels)
