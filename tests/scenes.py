"""Small images with labelled pixels, for the tests of segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastnas.data.segmentation.tables import CITYSCAPES_IDS

Array = np.ndarray[Any, Any]
SIZES = ((12, 16), (12, 16), (9, 20), (12, 16), (10, 10))


def scene(size: tuple[int, int], classes: int, seed: int) -> tuple[Array, Array]:
    """An image (H, W, 3) of noisy upright stripes and the class of each pixel (H, W); brightness tells the class."""
    random = np.random.default_rng(seed)
    labels = np.sort(random.permutation(np.arange(size[1]) % classes)).astype(np.uint8)[None].repeat(size[0], 0)
    image = labels[:, :, None] * (200 // classes) + random.integers(0, 20, (*size, 3))
    return image.astype(np.uint8), labels


def segmentation_folder(
    root: Path, *, train: int = 5, val: int = 3, classes: int = 3, sizes: tuple[tuple[int, int], ...] = SIZES
) -> Path:
    """{train,val}/{images,labels}/*.png, sizes (H, W) in turn; the last row of each image is void."""
    for part, count in (("train", train), ("val", val)):
        for i in range(count):
            image, labels = scene(sizes[i % len(sizes)], classes, i)
            labels[-1] = 255
            save(image, root / part / "images" / f"{i}.png")
            save(labels, root / part / "labels" / f"{i}.png")
    return root


def camvid_folder(root: Path, count: int = 3) -> Path:
    """Images and labels as SegNet's authors lay out CamVid, with a test split that must not be looked at."""
    for part in ("train", "val"):
        for i in range(count):
            image, labels = scene((10, 12), 12, i)
            save(image, root / part / f"{i}.jpg")
            save(labels, root / f"{part}annot" / f"{i}.png")
    (root / "test").mkdir()
    (root / "test" / "0.png").write_text("not to be read")
    return root


def cityscapes_folder(root: Path, count: int = 2) -> Path:
    """Images and labels as Cityscapes is laid out, with its 19 classes and ids that are void."""
    for part, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",))):
        for city in cities:
            for i in range(count):
                image, labels = scene((16, 32), 19, i)
                stem = f"{city}_{i:06}_000019"
                ids = np.array(CITYSCAPES_IDS, np.uint8)[labels]
                ids[0] = np.arange(32)
                save(image, root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
                save(ids, root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png")
                save(labels, root / "gtFine" / part / city / f"{stem}_gtFine_instanceIds.png")
    return root


def save(pixels: Array, file: Path) -> None:
    """Writes an array as an image, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
