"""From a folder of labelled images to pictures of predictions: an architecture search for semantic segmentation.

    python examples/segmentation.py camvid:photos/camvid runs/camvid
    python examples/segmentation.py photos runs/photos --minutes 10

The first argument is what docs/segmentation-data.md describes, the second a folder for the results. The same steps are
`fastnas search auto-deeplab`, `retrain auto-deeplab`, `plot` and `evaluate` on the command line.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from fastnas.data import Normalize
from fastnas.data.segmentation import IGNORE, SegmentationAugment, SegmentationBatches, load_segmentation
from fastnas.genotype.trellis import draw_auto_deeplab
from fastnas.nn import AutoDeepLabSupernet
from fastnas.search.evaluation import evaluate
from fastnas.search.segmentation_config import TrellisRetrainConfig
from fastnas.search.segmentation_driver import retrain

CROP, FILTERS = 97, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="camvid:PATH, cityscapes:PATH, or a folder")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to search (default 5)")
    parser.add_argument("--epochs", type=int, default=20, help="of the training that follows (default 20)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    genotype, beta = search(options.data, options.minutes * 60)
    print("path, in scales:", *(4 << level for level in genotype.path))
    for path in draw_auto_deeplab(genotype, options.out / "found", beta):
        print("drawn:", path)

    config = TrellisRetrainConfig(
        data=options.data, scale=0.5, crop=CROP, filters=FILTERS, batch_size=4, epochs=options.epochs
    )
    retrain(genotype, config, options.out / "network")
    found = evaluate(options.out / "network", pictures=4)
    print(f"mIOU {found['miou']:.1%}, pictures:", *found["pictures"], sep="\n  ")


def search(source: str, seconds: float):
    """Your own loop: the weights descend on one half of the images, α and β on the other.

    Returns:
        The genotype and β, before softmax.
    """
    torch.manual_seed(0)
    data = load_segmentation(source, scale=0.5)
    augment = SegmentationAugment(Normalize(*data.statistics), (CROP, CROP), (0.75, 1.25))
    weights_half, arch_half = (
        SegmentationBatches(data.train, half, 2, augment, stream=i) for i, half in enumerate(data.halves(seed=0))
    )
    network = AutoDeepLabSupernet(FILTERS, layers=8, num_classes=len(data.classes), memory="lean")
    sgd = torch.optim.SGD(network.weight_parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(network.arch_parameters(), 0.01, weight_decay=1e-3)

    def step(optimiser: torch.optim.Optimizer, batch) -> float:
        images, labels = batch
        loss = F.cross_entropy(network(images), labels, ignore_index=IGNORE)
        network.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    start, epoch = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        for train, val in zip(weights_half.epoch(epoch), arch_half.epoch(epoch), strict=False):
            loss = step(sgd, train)
            if passed > seconds / 2:  # starting early leads into bad local optima (Liu et al., §4.2)
                step(adam, val)
        epoch += 1
        print(f"{passed:5.0f} s, {epoch} epochs, loss {loss:.3f}")
    return network.genotype(), network.betas.detach().tolist()


if __name__ == "__main__":
    main()
