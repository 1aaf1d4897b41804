"""Every source of labelled pixels fulfils one contract, and batches are a function of seed, stream and epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import Array, camvid_folder, cityscapes_folder, save, scene, segmentation_folder
from torch import Generator, Tensor

from fastnas.data import Normalize
from fastnas.data.segmentation import (
    IGNORE,
    SegmentationAugment,
    SegmentationBatches,
    SegmentationData,
    WholeImages,
    class_weights,
    load_segmentation,
    splits,
    tables,
)
from fastnas.errors import UserError

PLAIN = Normalize(torch.zeros(3), torch.full((3,), 1 / 255))  # leaves the pixels' numbers


def pixels(file: Path) -> Array:
    return np.asarray(Image.open(file))


def test_a_folder_gives_the_pixels_and_labels_of_its_files(tmp_path: Path) -> None:
    data = load_segmentation(str(segmentation_folder(tmp_path)))
    assert data.classes == ("0", "1", "2")
    assert (len(data.train), len(data.val)) == (5, 3)
    assert data.train.sizes == [(12, 16), (12, 16), (9, 20), (12, 16), (10, 10)]
    for i, size in enumerate(data.train.sizes):
        image, labels = data.train[i]
        assert image.dtype == labels.dtype == torch.uint8
        assert image.shape == (3, *size)
        assert np.array_equal(image.permute(1, 2, 0), pixels(tmp_path / f"train/images/{i}.png"))
        assert np.array_equal(labels, pixels(tmp_path / f"train/labels/{i}.png"))
        assert (labels[-1] == IGNORE).all()
        assert torch.equal(data.train.counts[i], torch.bincount(labels.flatten(), minlength=256)[:3])


def test_names_of_classes_come_from_a_file(tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path)
    (root / "classes.txt").write_text("nothing\ncell\n nucleus \n\nwall\n\n", encoding="utf-8")
    data = load_segmentation(str(root))
    assert data.classes == ("nothing", "cell", "nucleus", "wall")
    assert data.palette.shape == (4, 3)
    assert data.train.counts.shape == (5, 4)


def test_camvid_has_the_classes_of_segnet(tmp_path: Path) -> None:
    root = camvid_folder(tmp_path)
    data = load_segmentation(f"camvid:{root}")
    assert data.classes[:4] == ("sky", "building", "pole", "road")
    assert len(data.classes) == len(data.palette) == 11
    assert data.palette[3].tolist() == [128, 64, 128]
    labels = data.train[0][1]
    original = pixels(root / "trainannot" / "0.png")
    assert np.array_equal(labels, np.where(original == 11, IGNORE, original))
    assert (len(data.train), len(data.val)) == (3, 3)


def test_cityscapes_ids_become_training_classes(tmp_path: Path) -> None:
    root = cityscapes_folder(tmp_path)
    data = load_segmentation(f"cityscapes:{root}")
    assert (len(data.train), len(data.val), len(data.classes), data.palette.shape) == (4, 2, 19, (19, 3))
    labels = data.val[1][1]
    original = scene((16, 32), 19, 1)[1]
    assert np.array_equal(labels[1:], original[1:])
    # The official table: the ids 0 to 31 in order.
    void = IGNORE
    first = [void] * 7 + [0, 1, void, void, 2, 3, 4, void, void, void, 5, void, *range(6, 16), void, void, 16]
    assert labels[0].tolist() == first
    assert data.classes[data.classes.index("car")] == data.classes[13]
    assert data.palette[13].tolist() == [0, 0, 142]


def test_scaling_averages_pixels_and_picks_labels(tmp_path: Path) -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    image[:, 6:] = 200
    labels = np.repeat(np.array([0, 1], np.uint8), 6)[None].repeat(8, 0)
    for part in ("train", "val"):
        save(image, tmp_path / part / "images" / "0.png")
        save(labels, tmp_path / part / "labels" / "0.png")
    data = load_segmentation(str(tmp_path), scale=0.5)
    small, classes = data.train[0]
    assert data.train.sizes == [(4, 6)]
    assert (small.shape, classes.shape) == ((3, 4, 6), (4, 6))
    assert classes.tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert small[0, 0].tolist()[0::5] == [0, 200]
    assert data.train.counts.tolist() == [[12, 12]]
    assert data.describe()["scale"] == 0.5


def greyscale_png(labels: Array, file: Path) -> None:
    Image.fromarray(labels).save(file, bits=4)


def palette_png(labels: Array, file: Path) -> None:
    image = Image.fromarray(labels)
    image.putpalette([200, 10, 10] * 256)
    image.save(file)


def bilevel_png(labels: Array, file: Path) -> None:
    Image.fromarray(labels > 0).save(file)


@pytest.mark.parametrize("write", [greyscale_png, palette_png, bilevel_png])
def test_labels_are_the_numbers_in_the_file(tmp_path: Path, write: object) -> None:
    assert callable(write)
    root = segmentation_folder(tmp_path)
    labels = scene((12, 16), 2, 0)[1]
    write(labels, root / "train" / "labels" / "0.png")
    assert np.array_equal(load_segmentation(str(root)).train[0][1], labels)


def test_grey_images_have_three_channels(tmp_path: Path) -> None:
    root = segmentation_folder(tmp_path)
    grey = scene((12, 16), 3, 0)[0][:, :, 0]
    save(grey, root / "train" / "images" / "0.png")
    assert np.array_equal(load_segmentation(str(root)).train[0][0], grey[None].repeat(3, 0))


def test_images_too_many_for_memory_are_read_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(segmentation_folder(tmp_path))
    held = load_segmentation(source, 0.7)
    monkeypatch.setattr(splits, "IN_MEMORY_BYTES", 0)
    read = load_segmentation(source, 0.7)
    assert (held.train.in_memory, read.train.in_memory) == (True, False)
    for i in range(5):
        assert all(map(torch.equal, held.train[i], read.train[i]))
    assert torch.equal(held.train.counts, read.train.counts)
    assert all(map(torch.equal, held.statistics, read.statistics))
    augment = SegmentationAugment(Normalize(*held.statistics), (8, 8))
    order = torch.arange(5)
    expected = list(SegmentationBatches(held.train, order, 2, augment).epoch(1))
    for workers in (0, 2):
        batches = SegmentationBatches(read.train, order, 2, augment, workers=workers)
        for pair, other in zip(batches.epoch(1), expected, strict=True):
            assert all(map(torch.equal, pair, other))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_damaged_later_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(splits, "IN_MEMORY_BYTES", 0)
    data = load_segmentation(str(segmentation_folder(tmp_path)))
    damaged = tmp_path / "val" / "images" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    batches = SegmentationBatches(data.val, torch.arange(3), 1, WholeImages(PLAIN), shuffle=False, workers=workers)
    with pytest.raises(UserError, match=f"^{damaged} cannot be read as an image: [^\n]*$"):
        list(batches.epoch(0))


def test_statistics_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    data = load_segmentation(str(segmentation_folder(tmp_path)))
    all_pixels = torch.cat([data.train[i][0].flatten(1) for i in range(5)], 1).double() / 255
    mean, deviation = data.statistics
    torch.testing.assert_close(mean.double(), all_pixels.mean(1), rtol=0, atol=1e-7)
    torch.testing.assert_close(deviation.double(), all_pixels.std(1, correction=0), rtol=0, atol=1e-7)


def test_weights_balance_by_median_frequency(tmp_path: Path) -> None:
    def part(name: str, *maps: list[int]) -> None:
        for i, row in enumerate(maps):
            save(np.zeros((1, len(row), 3), np.uint8), tmp_path / name / "images" / f"{i}.png")
            save(np.array([row], np.uint8), tmp_path / name / "labels" / f"{i}.png")

    part("train", [0, 0, 0, 1, 255, 255], [0, 0, 0, 0, 0, 2])
    part("val", [0])
    (tmp_path / "classes.txt").write_text("a\nb\nc\nabsent")
    # a: 8 of 10 labelled pixels; b: 1 of the 4 in its image; c: 1 of 6
    share = torch.tensor([8 / 10, 1 / 4, 1 / 6])
    weights = class_weights(load_segmentation(str(tmp_path)))
    torch.testing.assert_close(weights, torch.cat([0.25 / share, torch.zeros(1)]))


def test_colours_of_classes_differ() -> None:
    assert len({tuple(colour) for colour in tables.distinct_colours(60).tolist()}) == 60
    for known in (tables.CAMVID, tables.CITYSCAPES):
        assert len(set(known.values())) == len(known)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return load_segmentation(str(segmentation_folder(tmp_path_factory.mktemp("scenes"), train=12)))


def test_halves_are_disjoint_complete_and_follow_the_seed(data: SegmentationData) -> None:
    first, second = data.halves(1)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(12))
    assert len(first) == len(second) == 6
    assert torch.equal(data.halves(1)[0], first)
    assert not torch.equal(data.halves(2)[0], first)


def batches(data: SegmentationData, seed: int = 0, stream: int = 0) -> SegmentationBatches:
    augment = SegmentationAugment(Normalize(*data.statistics), (8, 10))
    return SegmentationBatches(data.train, torch.arange(12), 5, augment, seed=seed, stream=stream)


def whole(data: SegmentationData, batch_size: int) -> SegmentationBatches:
    return SegmentationBatches(data.train, torch.arange(12), batch_size, WholeImages(PLAIN), shuffle=False)


def flat(batches: SegmentationBatches, epoch: int) -> Tensor:
    return torch.cat([torch.cat([images.flatten(), labels.flatten()]) for images, labels in batches.epoch(epoch)])


def test_an_epoch_is_repeatable_and_independent_of_those_before(data: SegmentationData) -> None:
    again = batches(data)
    flat(again, 0)
    assert torch.equal(flat(again, 5), flat(batches(data), 5))


def test_epoch_seed_and_stream_change_the_crops(data: SegmentationData) -> None:
    all_crops = [flat(batches(data, seed, stream), epoch) for seed in (0, 1) for stream in (0, 1) for epoch in (0, 1)]
    for i, crops in enumerate(all_crops):
        assert not any(torch.equal(crops, other) for other in all_crops[:i])


def test_training_batches_have_one_size(data: SegmentationData) -> None:
    found = list(batches(data).epoch(0))
    assert len(found) == len(batches(data)) == 2
    for images, labels in found:
        assert (images.shape, images.dtype) == ((5, 3, 8, 10), torch.float32)
        assert (labels.shape, labels.dtype) == ((5, 8, 10), torch.int64)


def test_validation_reads_every_image_whole_and_in_order(data: SegmentationData) -> None:
    found = list(whole(data, 2).epoch(0))
    # Files 0, 1, 10, 11 have one size, 2 another, 3 the first, 4 a third and so on: no batch mixes two.
    assert [len(images) for images, _ in found] == [2, 2, 1, 1, 1, 2, 1, 1, 1]
    assert len(found) == len(whole(data, 2))
    images = [image for batch, _ in found for image in batch]
    labels = [label for _, batch in found for label in batch]
    for i in range(12):
        assert torch.equal(images[i], data.train[i][0].float())
        assert torch.equal(labels[i], data.train[i][1].long())


def test_reading_leaves_the_global_generator_alone(data: SegmentationData) -> None:
    before = torch.get_rng_state()
    list(batches(data).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def crops(augment: SegmentationAugment, image: Tensor, labels: Tensor, count: int = 300) -> list[tuple[Tensor, Tensor]]:
    generator = Generator().manual_seed(0)
    return [augment(image, labels, generator) for _ in range(count)]


def numbered(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose first channel and labels number its pixels."""
    labels = torch.arange(height * width, dtype=torch.uint8).view(height, width)
    return torch.stack([labels, 100 + labels, 150 - labels]), labels


def test_a_crop_is_any_window_of_the_image() -> None:
    image, labels = numbered(5, 6)
    found = crops(SegmentationAugment(PLAIN, (3, 4), (1.0, 1.0), mirror=False), image, labels)
    assert {int(classes[0, 0]) for _, classes in found} == {0, 1, 2, 6, 7, 8, 12, 13, 14}
    for pixels, classes in found:
        start = int(classes[0, 0])
        row, column = divmod(start, 6)
        assert torch.equal(classes, labels[row : row + 3, column : column + 4].long())
        assert torch.equal(pixels, image[:, row : row + 3, column : column + 4].float())


def test_a_crop_larger_than_the_image_is_filled_with_the_mean_and_void() -> None:
    image, labels = numbered(2, 3)
    mean = Normalize(torch.full((3,), 0.5), torch.full((3,), 0.1))
    found = crops(SegmentationAugment(mean, (3, 5), (1.0, 1.0), mirror=False), image, labels)
    corners = set()
    for pixels, classes in found:
        row, column = (classes == 0).nonzero()[0].tolist()
        corners.add((row, column))
        assert torch.equal(classes[row : row + 2, column : column + 3], labels.long())
        assert (classes != IGNORE).sum() == 6
        assert torch.equal(pixels[:, row : row + 2, column : column + 3], mean(image, Generator()))
        assert (pixels[:, classes == IGNORE] == 0).all()
    assert corners == {(row, column) for row in range(2) for column in range(3)}


def test_half_of_the_crops_are_mirrored_with_their_labels() -> None:
    image, labels = numbered(2, 3)
    found = crops(SegmentationAugment(PLAIN, (2, 3), (1.0, 1.0)), image, labels, 1000)
    mirrored = 0
    for pixels, classes in found:
        assert torch.equal(pixels[0], classes.float())
        mirrored += int(torch.equal(classes, labels.flip(1).long()))
        assert torch.equal(classes, labels.long()) or torch.equal(classes, labels.flip(1).long())
    assert 420 < mirrored < 580


def test_scaling_keeps_pixels_on_their_labels() -> None:
    # Stripes 16 pixels wide: away from their borders a crop's pixel shows the brightness of its label.
    stripes = torch.arange(8, dtype=torch.uint8).repeat_interleave(16)
    labels = stripes.expand(64, 128).contiguous()
    image = (30 * labels).expand(3, 64, 128)
    widths = []
    for pixels, classes in crops(SegmentationAugment(PLAIN, (40, 60), (0.5, 2.0)), image, labels):
        labelled = classes != IGNORE
        off = (pixels[0] - 30 * classes).abs()[labelled]
        assert off.max() <= 30
        assert (off > 1).float().mean() < 0.35
        steps = classes[20].diff().nonzero().flatten()
        widths += steps.diff().tolist()
    assert min(widths) < 10
    assert max(widths) > 30


def test_a_scaled_crop_is_the_crop_of_the_scaled_image() -> None:
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    labels = torch.randint(9, (20, 30), dtype=torch.uint8)
    size = (60, 40)
    large = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize(size, Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(large)).permute(2, 0, 1).float()
    classes = torch.from_numpy(np.array(Image.fromarray(labels.numpy()).resize(size, Image.Resampling.NEAREST)))
    windows = classes.unfold(0, 8, 1).unfold(1, 9, 1)
    for crop, found in crops(SegmentationAugment(PLAIN, (8, 9), (2.0, 2.0), mirror=False), image, labels, 20):
        row, column = (windows == found).all(-1).all(-1).nonzero()[0].tolist()
        inner = expected[:, row + 2 : row + 6, column + 2 : column + 7]
        assert (crop[:, 2:6, 2:7] - inner).abs().max() <= 1
