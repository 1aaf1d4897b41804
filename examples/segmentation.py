"""From a folder of labelled images to pictures of predictions: an architecture search for semantic segmentation.

    python examples/segmentation.py camvid:photos/camvid runs/camvid
    python examples/segmentation.py photos runs/photos --scale 1 --crop 129 --search-epochs 20

The first argument is what docs/segmentation-data.md describes, the second a folder for the results. The search is a
loop that you may change; without changes it is `fastnas search auto-deeplab`, as the rest is `fastnas plot`, `retrain
auto-deeplab` and `evaluate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from fastnas.data import Normalize
from fastnas.data.segmentation import IGNORE, SegmentationAugment, SegmentationBatches, load_segmentation
from fastnas.genotype import AutoDeepLabGenotype
from fastnas.genotype.trellis import draw_auto_deeplab
from fastnas.nn import AutoDeepLabSupernet
from fastnas.search.evaluation import evaluate
from fastnas.search.segmentation_config import TrellisRetrainConfig
from fastnas.search.segmentation_driver import retrain

LAYERS = 8
SCALES = 0.75, 1.5  # by which training images are resized at random


def main() -> None:
    options = parse()
    genotype, beta = search(options)
    print("path, in scales:", *(4 << level for level in genotype.path))
    options.out.mkdir(parents=True, exist_ok=True)
    for path in draw_auto_deeplab(genotype, options.out / "found", beta):
        print("drawn:", path)

    config = TrellisRetrainConfig(
        data=options.data,
        scale=options.scale,
        crop=options.crop,
        scale_min=SCALES[0],
        scale_max=SCALES[1],
        filters=options.filters,
        batch_size=4,
        epochs=options.epochs,
        drop_path=0.0,  # it holds a long training back from overfitting, and a short one from learning
    )
    retrain(genotype, config, options.out / "network")
    found = evaluate(options.out / "network", pictures=4)
    print(f"mIOU {found['miou']:.1%}, pictures:", *found["pictures"], sep="\n  ")


def search(options: argparse.Namespace) -> tuple[AutoDeepLabGenotype, list[list[list[float]]]]:
    """Your own loop: the weights descend on one half of the images, α and β on the other.

    Returns:
        The genotype and β, before softmax.
    """
    torch.manual_seed(0)
    data = load_segmentation(options.data, options.scale)
    augment = SegmentationAugment(Normalize(*data.statistics), (options.crop, options.crop), SCALES)
    weights_half, arch_half = (
        SegmentationBatches(data.train, half, 2, augment, stream=i) for i, half in enumerate(data.halves(seed=0))
    )
    network = AutoDeepLabSupernet(options.filters, layers=LAYERS, num_classes=len(data.classes), memory="lean")
    sgd = torch.optim.SGD(network.weight_parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(network.arch_parameters(), 0.01, weight_decay=1e-3)

    def step(optimiser: torch.optim.Optimizer, batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        images, labels = batch
        labelled = (labels != IGNORE).sum().clamp(min=1)  # a crop may be void all over
        loss = F.cross_entropy(network(images), labels, ignore_index=IGNORE, reduction="sum") / labelled
        network.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    for epoch in range(options.search_epochs):
        losses = []
        for train, val in zip(weights_half.epoch(epoch), arch_half.epoch(epoch), strict=False):
            losses.append(step(sgd, train))
            if epoch >= options.search_epochs // 2:  # starting early leads into bad local optima (Liu et al., §4.2)
                step(adam, val)
        print(f"search, epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}")
    return network.genotype(), network.betas.detach().tolist()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="camvid:PATH, cityscapes:PATH, or a folder")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--scale", type=float, default=0.5, help="of the images (default 0.5)")
    parser.add_argument("--crop", type=int, default=97, help="side of the squares that are trained on (default 97)")
    parser.add_argument("--filters", type=int, default=4, help="width of both networks (default 4)")
    parser.add_argument("--search-epochs", type=int, default=6, help="default 6")
    parser.add_argument("--epochs", type=int, default=20, help="of the training that follows (default 20)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
