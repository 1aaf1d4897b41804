"""Scores are those of the definition and of torchmetrics; pictures show what was labelled and predicted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scenes import segmentation_folder
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

from fastnas.data import Normalize
from fastnas.data.segmentation import IGNORE, SegmentationBatches, SegmentationData, WholeImages, load_segmentation
from fastnas.errors import UserError
from fastnas.search.overlay import blend, write_overlay
from fastnas.search.segmentation_eval import SegmentationScore, evaluate, predict

PLAIN = Normalize(torch.zeros(3), torch.full((3,), 1 / 255))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return load_segmentation(str(segmentation_folder(tmp_path_factory.mktemp("scenes"))))


def whole(data: SegmentationData, batch_size: int = 2) -> SegmentationBatches:
    order = torch.arange(len(data.train))
    return SegmentationBatches(data.train, order, batch_size, WholeImages(PLAIN), shuffle=False)


class Brightness(nn.Module):
    """Knows the classes of `scenes.scene`: three, of brightness 66 apart."""

    def forward(self, images: Tensor) -> Tensor:
        centres = torch.tensor([10.0, 76.0, 142.0]).view(1, 3, 1, 1)
        return -(images.mean(1, keepdim=True) - centres).abs()


def noisy() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=2, dilation=2))


def test_a_network_that_knows_all_scores_one(data: SegmentationData) -> None:
    score = evaluate(Brightness(), whole(data), data.classes)
    assert (score.mean_iou, score.pixel_accuracy) == (1.0, 1.0)
    assert score.iou.tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(score.confusion.sum(1), data.train.counts.sum(0))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_scores_are_those_of_torchmetrics(data: SegmentationData, batch_size: int) -> None:
    network = noisy()
    score = evaluate(network, whole(data, batch_size), data.classes)
    network.eval()
    macro = MulticlassJaccardIndex(3, ignore_index=IGNORE)
    each = MulticlassJaccardIndex(3, average=None, ignore_index=IGNORE)
    hits = pixels = 0
    for i in range(len(data.train)):
        image, labels = data.train[i]
        with torch.no_grad():
            found = network(image[None].float()).argmax(1)
        macro.update(found, labels[None].long())
        each.update(found, labels[None].long())
        hits += int((found[0] == labels).sum())
        pixels += int((labels != IGNORE).sum())
    assert score.mean_iou == pytest.approx(float(macro.compute()), abs=1e-6)
    torch.testing.assert_close(score.iou.float(), each.compute())
    assert score.pixel_accuracy == hits / pixels


def test_a_class_neither_labelled_nor_predicted_does_not_count() -> None:
    score = SegmentationScore(("a", "b", "c"), torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert score.iou[:2].tolist() == [3 / 4, 4 / 5]
    assert math.isnan(score.iou[2])
    assert score.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    predicted = SegmentationScore(("a", "b", "c"), torch.tensor([[3, 1, 1], [0, 4, 0], [0, 0, 0]]))
    assert predicted.iou[2] == 0
    assert predicted.mean_iou == pytest.approx((3 / 5 + 4 / 5 + 0) / 3)
    nothing = SegmentationScore(("a", "b"), torch.zeros(2, 2, dtype=torch.int64))
    assert math.isnan(nothing.mean_iou)
    assert math.isnan(nothing.pixel_accuracy)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_network_as_it_was(data: SegmentationData, training: bool) -> None:
    network = noisy().train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen: list[int] = []
    evaluate(network, whole(data), data.classes, (1.0, 0.5), mirror=True, report=seen.append)
    assert network.training == training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert sum(seen) == len(data.train)


def test_a_network_that_fails_stays_in_its_mode(data: SegmentationData) -> None:
    network = nn.Conv2d(5, 3, 1)
    with pytest.raises(RuntimeError):
        evaluate(network, whole(data), data.classes)
    assert network.training


def test_prediction_averages_probabilities_over_scales_and_mirror_images() -> None:
    network = noisy().eval()
    images = torch.randn(2, 3, 11, 14)
    total = torch.zeros(2, 3, 11, 14)
    for size in ((6, 7), (11, 14), (16, 21)):
        for mirror in (False, True):
            seen = F.interpolate(images, size, mode="bilinear", align_corners=True)
            logits = network(seen.flip(3) if mirror else seen)
            found = F.softmax(F.interpolate(logits, (11, 14), mode="bilinear", align_corners=True), 1)
            total += found.flip(3) if mirror else found
    assert torch.equal(predict(network, images, (0.5, 1.0, 1.5), mirror=True), total.argmax(1))


def test_coarse_logits_are_brought_to_the_images_size() -> None:
    network = nn.Sequential(nn.AvgPool2d(4), Brightness())
    image = torch.full((1, 3, 8, 12), 10.0)
    image[..., 8:] = 142.0
    found = predict(network, image)
    assert found.shape == (1, 8, 12)
    assert found[0, :, :3].eq(0).all()
    assert found[0, :, 10:].eq(2).all()


def test_an_image_lies_under_its_colours() -> None:
    palette = torch.tensor([[200, 0, 0], [0, 100, 0]], dtype=torch.uint8)
    image = torch.full((3, 1, 3), 50, dtype=torch.uint8)
    out = blend(image, torch.tensor([[0, 1, IGNORE]]), palette)
    assert out[:, 0].T.tolist() == [[140, 20, 20], [20, 80, 20], [20, 20, 20]]


@pytest.mark.parametrize("classes", [3, 19])
def test_a_picture_shows_labels_and_prediction_over_a_legend(tmp_path: Path, classes: int) -> None:
    data = load_segmentation(str(segmentation_folder(tmp_path, classes=classes, sizes=((30, 40),))))
    image, labels = data.val[0]
    prediction = torch.zeros(30, 40, dtype=torch.int64)
    write_overlay(tmp_path / "0.png", data, image, labels, prediction)
    picture = torch.from_numpy(np.array(Image.open(tmp_path / "0.png"))).permute(2, 0, 1)
    assert torch.equal(picture[:, 34:64, 12:52], blend(image, labels, data.palette))
    assert torch.equal(picture[:, 34:64, 64:104], blend(image, prediction, data.palette))
    legend = {tuple(colour) for colour in picture[:, 76:].flatten(1).T.tolist()}
    assert {tuple(colour) for colour in data.palette.tolist()} | {(0, 0, 0)} <= legend
    assert (picture[:, :, -12:] == 255).all()
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_picture_that_cannot_be_written(tmp_path: Path, data: SegmentationData) -> None:
    image, labels = data.train[0]
    with pytest.raises(UserError, match=r"missing/0\.png cannot be written: its folder is gone"):
        write_overlay(tmp_path / "missing" / "0.png", data, image, labels, labels)
