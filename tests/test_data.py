"""Every source of images fulfils one contract, and batches are a function of seed, stream and epoch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import image_folder
from torch import Generator, Tensor

from fastnas.data import Augment, Batches, ImageData, Normalize, TensorSplit, halves, load_data
from fastnas.data import folder as folder_module
from fastnas.errors import UserError


def everything(data: ImageData) -> tuple[Tensor, Tensor]:
    return data.train.__getitems__(list(range(len(data.train))))


def identity(images: Tensor, _: Generator) -> Tensor:
    return images.float()


def test_digits_are_split_by_class_and_keep_their_grey_levels() -> None:
    data = load_data("digits")
    images, labels = everything(data)
    assert (len(data.train), len(data.val)) == (1437, 360)
    assert images.shape == (1437, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert images.max() == 255
    shares = torch.bincount(labels) / torch.bincount(torch.cat([labels, data.val.labels]))
    assert torch.allclose(shares, torch.full((10,), 0.8), atol=0.01)
    assert not data.mirrored
    assert torch.equal(everything(load_data("digits"))[0], images)


def test_statistics_are_those_of_the_training_pixels() -> None:
    data = load_data("digits")
    pixels = everything(data)[0].double() / 255
    mean, deviation = data.statistics
    torch.testing.assert_close(mean.double(), pixels.mean((0, 2, 3)), rtol=0, atol=1e-7)
    torch.testing.assert_close(deviation.double(), pixels.std((0, 2, 3), correction=0), rtol=0, atol=1e-7)


def test_statistics_of_a_channel_without_contrast_are_finite() -> None:
    split = TensorSplit(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    data = ImageData("flat", ("a", "b"), 1, (2, 2), split, split)
    assert torch.isfinite(Normalize(*data.statistics)(split.images, Generator())).all()


def test_a_folder_gives_the_pixels_of_its_files(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    data = load_data(str(root))
    assert data.classes == ("bird", "cat")
    assert (data.channels, data.size) == (3, (6, 8))
    images, labels = everything(data)
    assert labels.tolist() == [0] * 8 + [1] * 8
    expected = np.asarray(Image.open(root / "train" / "cat" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal(images[8].numpy(), expected)


def test_only_grey_images_have_one_channel(tmp_path: Path) -> None:
    grey = image_folder(tmp_path / "grey", mode="L")
    assert load_data(str(grey)).channels == 1
    Image.new("RGB", (8, 6)).save(grey / "val" / "cat" / "colour.png")
    assert load_data(str(grey)).channels == 3


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    root = image_folder(tmp_path, mode="L")
    Image.fromarray(np.full((6, 8), 0x1234, np.uint16)).save(root / "train" / "bird" / "0.png")
    assert everything(load_data(str(root)))[0][0].unique().tolist() == [0x12]


def test_a_turned_photograph_stands_upright(tmp_path: Path) -> None:
    root = image_folder(tmp_path, size=(8, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((6, 8, 3), np.uint8)
    lying[:, :4] = 255
    Image.fromarray(lying).save(root / "train" / "bird" / "0.jpg", exif=exif)
    data = load_data(str(root))
    assert data.size == (8, 6)
    photograph = everything(data)[0][0].float()
    assert photograph[:, :3].min() > 200
    assert photograph[:, 5:].max() < 50


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "ppm", "tif", "webp"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    root = image_folder(tmp_path)
    Image.new("RGB", (8, 6), (200, 200, 200)).save(root / "train" / "bird" / f"a.{suffix}")
    data = load_data(str(root))
    assert len(data.train) == 17
    assert abs(int(everything(data)[0][8].float().mean()) - 200) <= 2


def test_resizing_covers_the_square_and_cuts_the_middle(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(root / "train" / "bird" / "0.png")
    data = load_data(str(root), image_size=10)
    assert data.size == (10, 10)
    assert everything(data)[0][0].min() == 255


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (root / "train" / "bird" / "notes.txt").write_text("no image")
    (root / "train" / "bird" / ".hidden.png").write_bytes(b"no image")
    (root / "train" / ".cache").mkdir()
    assert len(load_data(str(root)).train) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_images_too_many_for_memory_are_read_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    root = str(image_folder(tmp_path))
    held = load_data(root)
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    read = load_data(root)
    assert not read.train.in_memory
    for a, b in zip(read.statistics, held.statistics, strict=True):
        assert torch.equal(a, b)
    order = torch.arange(16)
    batches = [Batches(data.train, order, 4, identity, workers=workers) for data in (read, held)]
    for (images, labels), (expected, expected_labels) in zip(*(b.epoch(0) for b in batches), strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_damaged_later_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    root = image_folder(tmp_path)
    data = load_data(str(root))
    damaged = root / "train" / "cat" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(UserError, match=f"^{damaged} cannot be read as an image: [^\n]*$"):
        list(Batches(data.train, torch.arange(16), 4, identity, workers=workers).epoch(0))


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    package, datasets = ModuleType("torchvision"), ModuleType("torchvision.datasets")
    datasets.CIFAR10 = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def test_cifar10_is_read_through_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(root: str, train: bool, download: bool) -> SimpleNamespace:
        assert (root, download) == ("/data", False)
        pixels = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
        return SimpleNamespace(data=pixels, targets=[3, 1], classes=["a", "b", "c", "d"])

    fake_torchvision(monkeypatch, make)
    data = load_data("cifar10:/data")
    assert (data.channels, data.size, len(data.classes)) == (3, (32, 32), 4)
    images, labels = everything(data)
    assert images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert labels.tolist() == [3, 1]


def test_cifar10_without_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(root: str, train: bool, download: bool) -> SimpleNamespace:
        raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")

    fake_torchvision(monkeypatch, make)
    with pytest.raises(UserError, match=r"^/data does not hold CIFAR-10's files"):
        load_data("cifar10:/data")


def test_cifar10_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"needs torchvision.*pip install 'fastnas\[cifar10\]'"):
        load_data("cifar10:/data")


@pytest.mark.parametrize("count", [2, 9, 40])
def test_halves_are_disjoint_complete_and_even(count: int) -> None:
    labels = torch.arange(count) % 3
    first, second = halves(labels, seed=1)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(count))
    assert len(first) - len(second) in (0, 1)
    counts = [torch.bincount(labels[half], minlength=3) for half in (first, second)]
    assert (counts[0] - counts[1]).abs().max() <= 1


def test_halves_follow_the_seed() -> None:
    labels = torch.arange(40) % 2
    assert torch.equal(halves(labels, 1)[0], halves(labels, 1)[0])
    assert not torch.equal(halves(labels, 1)[0], halves(labels, 2)[0])


def batches(seed: int = 0, stream: int = 0, shuffle: bool = True, count: int = 10) -> Batches:
    split = TensorSplit(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20))
    augment = Augment(Normalize(torch.zeros(1), torch.ones(1) / 255), 0, False, 0)
    return Batches(split, torch.arange(count), 4, augment, shuffle, seed, stream)


def labels_of(batches: Batches, epoch: int) -> list[int]:
    return [int(label) for _, labels in batches.epoch(epoch) for label in labels]


def test_an_epoch_is_repeatable_and_independent_of_those_before() -> None:
    again = batches()
    labels_of(again, 0)
    assert labels_of(again, 5) == labels_of(batches(), 5)


def test_epoch_seed_and_stream_change_the_order() -> None:
    orders = [labels_of(batches(seed, stream), epoch) for seed in (0, 1) for stream in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_training_leaves_out_the_incomplete_batch_and_validation_does_not() -> None:
    train, val = batches(), batches(shuffle=False)
    assert len(train) == len(list(train.epoch(0))) == 2
    assert len(val) == len(list(val.epoch(0))) == 3
    assert labels_of(val, 0) == list(range(10))
    assert set(labels_of(train, 0)) < set(range(10))


def test_images_stay_with_their_labels() -> None:
    for images, labels in batches().epoch(3):
        assert torch.equal(images.flatten(), labels.float())


def test_reading_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(batches().epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


PLAIN = Normalize(torch.zeros(1), torch.ones(1) / 255)


def test_normalisation() -> None:
    normalize = Normalize(torch.tensor([0.5, 0.25]), torch.tensor([0.1, 0.2]))
    images = torch.full((1, 2, 1, 1), 51, dtype=torch.uint8)
    torch.testing.assert_close(normalize(images, Generator()).flatten(), torch.tensor([-3.0, -0.25]))


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    image = torch.arange(1, 13, dtype=torch.uint8).view(1, 1, 3, 4).expand(200, 1, 3, 4)
    out = Augment(PLAIN, 2, False, 0)(image, Generator().manual_seed(0))
    padded = torch.zeros(7, 8)
    padded[2:5, 2:6] = image[0, 0]
    windows = {tuple(padded[i : i + 3, j : j + 4].flatten().tolist()) for i in range(5) for j in range(5)}
    assert {tuple(crop.flatten().tolist()) for crop in out} == windows


def test_half_of_the_images_are_mirrored() -> None:
    image = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 1, 1, 3).expand(1000, 1, 1, 3)
    out = Augment(PLAIN, 0, True, 0)(image, Generator().manual_seed(0)).flatten(1)
    mirrored = (out == torch.tensor([3.0, 2.0, 1.0])).all(1)
    assert ((out == torch.tensor([1.0, 2.0, 3.0])).all(1) | mirrored).all()
    assert 420 < mirrored.sum() < 580


def test_cutout_clears_a_square_clipped_at_the_border() -> None:
    images = torch.full((500, 2, 6, 7), 9, dtype=torch.uint8)
    cut = Augment(PLAIN, 0, False, 3)(images, Generator().manual_seed(0)) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2), cut[:, 0].any(1)
    assert torch.equal(cut[:, 0], rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        assert set(line.sum(1).tolist()) == {2, 3}
        assert line.any(0).all()
