"""Finds the images and labels that the user names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fastnas.data.picture import image_files, visible
from fastnas.data.segmentation.dataset import IGNORE, SegmentationData
from fastnas.data.segmentation.pairs import Labels, Pair, inspect_pair, largest_number
from fastnas.data.segmentation.splits import open_splits, parallel
from fastnas.data.segmentation.tables import (
    CAMVID,
    CAMVID_VOID,
    CITYSCAPES,
    CITYSCAPES_IDS,
    CITYSCAPES_LABELS,
    Colour,
    distinct_colours,
)
from fastnas.errors import UserError

_CAMVID, _CITYSCAPES = "camvid:", "cityscapes:"
_PARTS = ("train", "val")
_NAMES = "classes.txt"
_IMAGE, _LABELS = "_leftImg8bit.png", "_gtFine_labelIds.png"

Files = list[tuple[Path, Path]]
Parts = list[list[Pair]]  # of train and val


def load_segmentation(source: str, scale: float = 1.0) -> SegmentationData:
    """The images that `source` names with their labels, all checked.

    Every header is looked at and every label file is read, so what is wrong shows now. The images themselves are
    decoded now if all fit into memory, and later otherwise.

    Args:
        source: "camvid:PATH", "cityscapes:PATH", or a folder with {train,val}/images/* and {train,val}/labels/*.png
            (docs/segmentation-data.md).
        scale: multiplies height and width on reading; above 0, at most 1.

    Raises:
        UserError: something is not there or cannot be used; the message says which and why.
    """
    if not 0 < scale <= 1:
        raise UserError(f"images cannot be read at scale {scale}; expected a number above 0, at most 1")
    if source.startswith(_CAMVID):
        parts = _parts(Path(source.removeprefix(_CAMVID)), _camvid)
        numbers = Labels(range(len(CAMVID)), [CAMVID_VOID], "0 to 10, or 11 where a pixel is void")
        return _known(source, CAMVID, parts, numbers, scale)
    if source.startswith(_CITYSCAPES):
        parts = _parts(Path(source.removeprefix(_CITYSCAPES)), _cityscapes)
        void = [number for number in range(CITYSCAPES_LABELS) if number not in CITYSCAPES_IDS]
        numbers = Labels(CITYSCAPES_IDS, void, "0 to 33, the ids of Cityscapes' labels")
        return _known(source, CITYSCAPES, parts, numbers, scale)
    return _folder(Path(source), scale)


def _known(name: str, classes: dict[str, Colour], parts: Parts, numbers: Labels, scale: float) -> SegmentationData:
    palette = torch.tensor(list(classes.values()), dtype=torch.uint8)
    return _data(name, tuple(classes), palette, parts, numbers, scale)


def _folder(root: Path, scale: float) -> SegmentationData:
    parts = _parts(root, _pairs_of_folder)
    if (root / _NAMES).exists():
        classes = _names(root / _NAMES)
        reason = f"{_NAMES} has {len(classes)} names"
    else:
        largest = max(parallel(largest_number, parts[0]))
        if largest < 0:
            raise _void(str(root))
        classes = tuple(str(number) for number in range(largest + 1))
        reason = f"{root}/train has {len(classes)} classes"
    if len(classes) == 1:
        raise UserError(f"{root} has one class only; segmentation needs at least two")
    expected = f"0 to {len(classes) - 1}, or {IGNORE} where a pixel is void, as {reason}"
    numbers = Labels(range(len(classes)), [IGNORE], expected)
    return _data(str(root), classes, distinct_colours(len(classes)), parts, numbers, scale)


def _data(
    name: str, classes: tuple[str, ...], palette: Tensor, parts: Parts, numbers: Labels, scale: float
) -> SegmentationData:
    train, val = open_splits(parts, numbers, scale)
    if not train.counts.any():
        raise _void(name)
    return SegmentationData(name, classes, palette, train, val, scale)


def _void(name: str) -> UserError:
    return UserError(f"{name} has no labelled pixel in its training images; all are void")


def _names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(names) <= IGNORE:
        raise UserError(f"{file} has {len(names)} names; expected one name a line, 2 to {IGNORE} of them")
    return names


def _parts(root: Path, find: Callable[[Path, str], Files]) -> Parts:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; expected camvid:PATH, cityscapes:PATH or a folder of images")
    return [parallel(lambda files: inspect_pair(*files), find(root, part)) for part in _PARTS]


def _camvid(root: Path, part: str) -> Files:
    return _same_stem(root / part, root / f"{part}annot")


def _pairs_of_folder(root: Path, part: str) -> Files:
    return _same_stem(root / part / "images", root / part / "labels")


def _same_stem(images: Path, labels: Path) -> Files:
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected images in {images} and their labels in {labels}")
    found = image_files(images)
    if not found:
        raise UserError(f"{images} holds no image file that Pillow reads")
    return [_with_labels(image, labels / f"{image.stem}.png") for image in found]


def _cityscapes(root: Path, part: str) -> Files:
    images, labels = root / "leftImg8bit" / part, root / "gtFine" / part
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected Cityscapes' leftImg8bit and gtFine in {root}")
    cities = [city for city in visible(images) if city.is_dir()]
    found = [image for city in cities for image in visible(city) if image.name.endswith(_IMAGE)]
    if not found:
        raise UserError(f"{images} holds no image <city>/<city>_<sequence>_<frame>{_IMAGE}")
    return [
        _with_labels(image, labels / image.parent.name / (image.name.removesuffix(_IMAGE) + _LABELS)) for image in found
    ]


def _with_labels(image: Path, labels: Path) -> tuple[Path, Path]:
    if not labels.is_file():
        raise UserError(f"{image} has no labels; expected them in {labels}")
    return image, labels
