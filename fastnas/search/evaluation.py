"""The measurement of a trained segmentation network, from its folder to figures and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastnas.data import Normalize
from fastnas.data.segmentation import SegmentationBatches, SegmentationData, WholeImages, load_segmentation
from fastnas.errors import UserError
from fastnas.genotype import AutoDeepLabGenotype, GenotypeError, load
from fastnas.nn import AutoDeepLabNetwork, count
from fastnas.search import processes, segmentation_eval
from fastnas.search.config import CONFIG, GENOTYPE, make_config, read_config
from fastnas.search.device import device_of
from fastnas.search.driver import check_device, reproducible
from fastnas.search.files import write_atomically
from fastnas.search.launch import launched
from fastnas.search.lock import locked
from fastnas.search.overlay import write_overlay
from fastnas.search.run import EVALUATION
from fastnas.search.segmentation_config import TrellisRetrainConfig
from fastnas.search.segmentation_driver import make_network
from fastnas.search.trained import load_weights


def evaluate(
    folder: Path,
    weights: str = "best",
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    pictures: int = 0,
    device: str | None = None,
) -> dict[str, Any]:
    """Measures the network that `retrain` trained in `folder` on its validation images.

    Args:
        folder: of the training.
        weights: "best" or "last".
        scales, mirror: see `fastnas.search.segmentation_eval.predict`.
        pictures: how many images to draw, spread over the set.
        device: see `fastnas.search.device.find_device`; None for that of the training.

    Returns:
        The content of evaluation.json, which is written into `folder`: `miou`, `pixel_accuracy`, `iou` of every class
        (None where it is neither labelled nor predicted), the network's size, and the paths of the pictures.

    Raises:
        UserError: `folder` holds no such training, its weights are damaged, the images have changed, there is no such
            device, or another process is at it.
    """
    values = read_config(folder / CONFIG, "retrain auto-deeplab")
    config = make_config(TrellisRetrainConfig, values | ({} if device is None else {"device": device}))
    check_device(config)
    with locked(folder):
        return _measure(folder, config, weights, scales, mirror, pictures)


def _measure(
    folder: Path, config: TrellisRetrainConfig, weights: str, scales: Sequence[float], mirror: bool, pictures: int
) -> dict[str, Any]:
    data = load_segmentation(config.data, config.scale)
    network = _load_network(folder, weights, config, data)
    whole = WholeImages(Normalize(*data.statistics))
    everything, share = torch.arange(len(data.val)), launched().share
    batches = SegmentationBatches(data.val, everything, 1, whole, shuffle=False, share=share)
    with reproducible(config) as place:
        network.to(place)
        score = segmentation_eval.evaluate(network, batches, data.classes, scales, mirror, place)
        score = replace(score, confusion=processes.total(score.confusion))
        drawn = [
            _draw(network.eval(), data, whole, i, folder, scales, mirror) for i in _spread(pictures, len(data.val))
        ]
    iou = {
        name: None if math.isnan(value) else value for name, value in zip(data.classes, score.iou.tolist(), strict=True)
    }
    found = {
        "miou": score.mean_iou,
        "pixel_accuracy": score.pixel_accuracy,
        "iou": iou,
        **count(network, len(data.statistics[0]), data.size)._asdict(),
        "weights": weights,
        "scales": list(scales),
        "mirror": mirror,
        "images": len(data.val),
        "pictures": [str(path) for path in drawn],
    }
    write_atomically(folder / EVALUATION, (json.dumps(found, indent=2) + "\n").encode())
    return found


def _load_network(
    folder: Path, weights: str, config: TrellisRetrainConfig, data: SegmentationData
) -> AutoDeepLabNetwork:
    try:
        network = make_network(load(folder / GENOTYPE, AutoDeepLabGenotype), config, data)
    except GenotypeError as error:
        raise UserError(str(error)) from error
    load_weights(network, folder / f"{weights}.pt")
    return network


def _spread(count: int, total: int) -> list[int]:
    count = min(count, total)
    return [i * total // count for i in range(count)]


def _draw(
    network: AutoDeepLabNetwork,
    data: SegmentationData,
    whole: WholeImages,
    index: int,
    folder: Path,
    scales: Sequence[float],
    mirror: bool,
) -> Path:
    image, labels = data.val[index]
    seen = whole(image, labels, torch.Generator())[0][None].to(device_of(network))
    prediction = segmentation_eval.predict(network, seen, scales, mirror)[0]
    path = folder / f"prediction-{index}.png"
    write_overlay(path, data, image, labels, prediction)
    return path
