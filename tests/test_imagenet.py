"""ImageNet's recipe: what is seen of an image, in which epoch, and a training with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from runs import files, image_folder, retrain_config, stopped_before_saving
from torch import Generator, Tensor

from fastnas.data import Batches, ImageData, load_data
from fastnas.data.dataset import Selection
from fastnas.data.imagenet import middle, random_box, vary
from fastnas.errors import UserError
from fastnas.genotype import DARTS_V2
from fastnas.search.config import RetrainConfig, make_config
from fastnas.search.driver import retrain
from fastnas.search.trained import read_trained

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (32, 32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("photos"), size=(40, 48), train=4, val=2)


@pytest.fixture(scope="module")
def seen(photos: Path) -> ImageData:
    return load_data(str(photos), 32, "imagenet")


def test_a_random_part_is_in_the_image_and_of_every_size() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([random_box((200, 200), random) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert boxes.min() == 0
    assert boxes.max() == 200
    width, height = right - left, bottom - top
    share, proportion = width * height / 200**2, width / height
    assert share.min() == pytest.approx(0.08, abs=0.005)
    assert share.max() > 0.95
    assert (proportion.min(), proportion.max()) == pytest.approx((3 / 4, 4 / 3), abs=0.02)
    assert abs(np.log(proportion).mean()) < 0.02


@pytest.mark.parametrize(
    ("size", "box"), [((400, 3), (198, 0, 202, 3)), ((3, 400), (0, 198, 3, 202)), ((1, 1), (0, 0, 1, 1))]
)
def test_of_a_narrow_image_it_is_the_middle(size: tuple[int, int], box: tuple[int, ...]) -> None:
    assert random_box(size, np.random.default_rng(0)) == box


def test_validation_sees_the_middle() -> None:
    image = Image.new("RGB", (356, 256), "red")
    ImageDraw.Draw(image).rectangle((66, 16, 356 - 67, 256 - 17), fill="blue")
    assert middle(image, (224, 224)).getcolors() == [(224 * 224, (0, 0, 255))]


def test_colours_change_within_their_ranges() -> None:
    grey, red = Image.new("RGB", (9, 9), (128, 128, 128)), Image.new("RGB", (9, 9), (200, 40, 40))
    levels, hues = [], []
    for seed in range(300):
        ((_, level),) = vary(grey, (4, 4), np.random.default_rng(seed)).getcolors()
        assert len(set(level)) == 1  # brightness alone tells
        levels.append(level[0] / 128)
        hues.append(vary(red, (4, 4), np.random.default_rng(seed)).convert("HSV").getpixel((0, 0))[0] / 255)
    assert (min(levels), max(levels)) == pytest.approx((0.6, 1.4), abs=0.02)
    turns = [(hue + 0.5) % 1 - 0.5 for hue in hues]
    assert (min(turns), max(turns)) == pytest.approx((-0.2, 0.2), abs=0.02)
    assert vary(Image.new("L", (9, 9), 128), (4, 4), np.random.default_rng(0)).mode == "L"


def pixels(images: Tensor, _: Generator) -> Tensor:
    return images


def by_label(data: ImageData, epoch: int, size: int, workers: int = 0) -> dict[bytes, int]:
    order = torch.arange(len(data.train))
    batches = Batches(data.train, order, size, pixels, True, seed=3, workers=workers)
    return {
        image.numpy().tobytes(): int(label) for each in batches.epoch(epoch) for image, label in zip(*each, strict=True)
    }


def test_an_epoch_sees_its_own_parts_whoever_reads_them(seen: ImageData) -> None:
    first = by_label(seen, 0, 4)
    assert len(first) == 8
    assert set(first.values()) == {0, 1}
    assert by_label(seen, 0, 2, workers=2) == first
    assert not first.keys() & by_label(seen, 1, 4).keys()


def test_outside_of_an_epoch_and_for_validation_it_is_the_middle(seen: ImageData, photos: Path) -> None:
    with Image.open(photos / "train" / "bird" / "0.png") as image:
        expected = np.asarray(middle(image, SIZE)).transpose(2, 0, 1)
    assert np.array_equal(seen.train.__getitems__([0])[0][0].numpy(), expected)
    assert seen.val.at(0, 0, 1) is seen.val
    assert seen.size == SIZE


def test_a_part_of_a_split_varies_as_the_whole(seen: ImageData) -> None:
    part = Selection(seen.train, torch.tensor([5, 2])).at(0, 0, 7)
    images, labels = part.__getitems__([1])
    assert torch.equal(images, seen.train.at(0, 0, 7).__getitems__([2])[0])
    assert labels.tolist() == [0]


def test_a_training_by_the_recipe_is_resumed_with_the_same_bits(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"augment": "imagenet", "image_size": 32, "stem": "imagenet", "lr_decay": 0.97}
    config = retrain_config(photos, lr=0.1, epochs=3, **options)
    retrain(DARTS_V2, config, tmp_path / "whole")
    with stopped_before_saving(3):
        retrain(DARTS_V2, config, tmp_path / "run")
    retrain(DARTS_V2, config, tmp_path / "run", resume=True)
    assert files(tmp_path / "run") == files(tmp_path / "whole")
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([0.1, 0.097, 0.09409])
    used = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (used["padding"], used["cutout"], used["mirror"]) == (0, 0, True)
    assert read_trained(tmp_path / "run").network.imagenet


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"augment": "imagenet"}, "--augment imagenet needs --image-size, and a folder of images"),
        ({"augment": "imagenet", "image_size": 8, "data": "datasets:1"}, "--augment imagenet needs --image-size"),
        ({"stem": "imagenet", "channels": 3}, "--channels is 3; --stem imagenet needs an even number"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_config(RetrainConfig, {"data": "photos", **options})
