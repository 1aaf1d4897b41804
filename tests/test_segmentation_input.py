"""Bad images and labels get one sentence that names the thing, before any work starts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import camvid_folder, cityscapes_folder, save, segmentation_folder

from fastnas.data.segmentation import load_segmentation
from fastnas.errors import UserError


def refused(source: str, sentence: str, scale: float = 1.0) -> None:
    with pytest.raises(UserError, match=f"^[^\n]*{re.escape(sentence)}[^\n]*$"):
        load_segmentation(source, scale)


def no_train(root: Path) -> str:
    shutil.rmtree(root / "train")
    return f"there is no folder {root}/train/images; expected images in {root}/train/images and their labels in"


def no_labels(root: Path) -> str:
    shutil.rmtree(root / "val" / "labels")
    return f"there is no folder {root}/val/labels"


def no_images(root: Path) -> str:
    for file in list((root / "val" / "images").iterdir()):
        file.rename(file.with_suffix(".txt"))
    return f"{root}/val/images holds no image file that Pillow reads"


def image_without_labels(root: Path) -> str:
    (root / "train" / "labels" / "2.png").unlink()
    return f"{root}/train/images/2.png has no labels; expected them in {root}/train/labels/2.png"


def no_image(root: Path) -> str:
    (root / "train" / "images" / "1.png").write_text("hello")
    return f"{root}/train/images/1.png cannot be read as an image: unknown format"


def truncated_image(root: Path) -> str:
    file = root / "train" / "images" / "1.png"
    file.write_bytes(file.read_bytes()[:-100])
    return f"{file} cannot be read as an image"


def label_that_is_no_image(root: Path) -> str:
    (root / "val" / "labels" / "1.png").write_bytes(b"")
    return f"{root}/val/labels/1.png cannot be read as an image"


def truncated_labels(root: Path) -> str:
    file = root / "val" / "labels" / "1.png"
    file.write_bytes(file.read_bytes()[:-30])
    return f"{file} cannot be read as an image"


def coloured_labels(root: Path) -> str:
    save(np.zeros((12, 16, 3), np.uint8), root / "train" / "labels" / "1.png")
    return f"{root}/train/labels/1.png has pixels of Pillow's mode 'RGB'; expected one number a pixel, 8 bits or fewer"


def other_size(root: Path) -> str:
    save(np.zeros((16, 12), np.uint8), root / "train" / "labels" / "1.png")
    return f"train/labels/1.png is 12x16 pixels; expected 16x12 as its image {root}/train/images/1.png"


def label_beyond_the_names(root: Path) -> str:
    (root / "classes.txt").write_text("sky\nsea\n")
    return "labels/0.png has label 2 in row 0, column 11; expected 0 to 1, or 255 where a pixel is void"


def label_only_in_validation(root: Path) -> str:
    labels = np.zeros((12, 16), np.uint8)
    labels[3, 4] = 7
    save(labels, root / "val" / "labels" / "0.png")
    return (
        f"{root}/val/labels/0.png has label 7 in row 3, column 4; expected 0 to 2, or 255 where a pixel is void, "
        f"as {root}/train has 3 classes"
    )


def one_class(root: Path) -> str:
    for i in range(5):
        labels = np.asarray(Image.open(root / "train" / "labels" / f"{i}.png"))
        save(np.zeros_like(labels), root / "train" / "labels" / f"{i}.png")
    return f"{root} has one class only; segmentation needs at least two"


def one_name(root: Path) -> str:
    (root / "classes.txt").write_text("sky")
    return f"{root} has one class only; segmentation needs at least two"


def no_name(root: Path) -> str:
    (root / "classes.txt").write_text("\n\n")
    return f"{root}/classes.txt has 0 names; expected one name a line, 2 to 255 of them"


def too_many_names(root: Path) -> str:
    (root / "classes.txt").write_text("class\n" * 256)
    return f"{root}/classes.txt has 256 names"


def names_that_are_no_text(root: Path) -> str:
    (root / "classes.txt").write_bytes(b"\xff\xfe\x00")
    return f"{root}/classes.txt cannot be read as text"


@pytest.mark.parametrize(
    "damage",
    [
        no_train,
        no_labels,
        no_images,
        image_without_labels,
        no_image,
        truncated_image,
        label_that_is_no_image,
        truncated_labels,
        coloured_labels,
        other_size,
        label_beyond_the_names,
        label_only_in_validation,
        one_class,
        one_name,
        no_name,
        too_many_names,
        names_that_are_no_text,
    ],
)
def test_a_folder(tmp_path: Path, damage: Callable[[Path], str]) -> None:
    root = segmentation_folder(tmp_path)
    refused(str(root), damage(root))


@pytest.mark.parametrize("names", [True, False])
def test_nothing_labelled(tmp_path: Path, names: bool) -> None:
    for part in ("train", "val"):
        save(np.zeros((4, 4, 3), np.uint8), tmp_path / part / "images" / "0.png")
        save(np.full((4, 4), 255, np.uint8), tmp_path / part / "labels" / "0.png")
    if names:
        (tmp_path / "classes.txt").write_text("sky\nsea\n")
    refused(str(tmp_path), f"{tmp_path} has no labelled pixel in its training images; all are void")


@pytest.mark.parametrize("prefix", ["", "camvid:", "cityscapes:"])
def test_no_folder(tmp_path: Path, prefix: str) -> None:
    refused(f"{prefix}{tmp_path}/x", f"there is no folder {tmp_path}/x; expected camvid:PATH, cityscapes:PATH or a")


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, float("nan")])
def test_scale(tmp_path: Path, scale: float) -> None:
    refused(str(tmp_path), f"images cannot be read at scale {scale}; expected a number above 0, at most 1", scale)


def test_camvid(tmp_path: Path) -> None:
    root = camvid_folder(tmp_path)
    save(np.full((10, 12), 12, np.uint8), root / "valannot" / "1.png")
    sentence = f"{root}/valannot/1.png has label 12 in row 0, column 0; expected 0 to 10, or 11 where a pixel is void"
    refused(f"camvid:{root}", sentence)
    shutil.rmtree(root / "valannot")
    refused(f"camvid:{root}", f"there is no folder {root}/valannot; expected images in {root}/val and their labels in")


def test_cityscapes(tmp_path: Path) -> None:
    root = cityscapes_folder(tmp_path)
    labels = root / "gtFine" / "val" / "lindau" / "lindau_000001_000019_gtFine_labelIds.png"
    save(np.full((16, 32), 34, np.uint8), labels)
    refused(f"cityscapes:{root}", f"{labels} has label 34 in row 0, column 0; expected 0 to 33, the ids of Cityscapes'")
    labels.unlink()
    refused(f"cityscapes:{root}", f"lindau_000001_000019_leftImg8bit.png has no labels; expected them in {labels}")
    shutil.rmtree(root / "leftImg8bit" / "val" / "lindau")
    refused(f"cityscapes:{root}", f"{root}/leftImg8bit/val holds no image <city>/<city>_<sequence>_<frame>")
    shutil.rmtree(root / "gtFine")
    refused(
        f"cityscapes:{root}",
        f"there is no folder {root}/gtFine/train; expected Cityscapes' leftImg8bit and gtFine in {root}",
    )
