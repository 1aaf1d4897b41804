"""Does the search pay? On CamVid, the network that a search finds, random ones, and a plain encoder-decoder.

    python benchmarks/camvid.py PATH runs/camvid-study
    python benchmarks/camvid.py PATH runs/camvid-study --kinds random --seeds 1    # a part, beside other parts

One search, then three seeds of each kind with the same recipe; every seed draws another random architecture, and the
encoder-decoder has as many parameters as the found network. What is finished is kept and what was interrupted goes on,
so the last command makes the table. Only train and val are used; the test split is never read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from encoder_decoder import EncoderDecoder
from rich.console import Console
from rich.table import Table
from torch import nn

from fastnas.data.segmentation import SegmentationData, load_segmentation
from fastnas.genotype import AutoDeepLabGenotype, load
from fastnas.genotype.sample import random_auto_deeplab
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.auto_deeplab_retrain import AutoDeepLabRetraining
from fastnas.search.driver import reproducible, run_epochs
from fastnas.search.files import write_atomically
from fastnas.search.run import Run
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.segmentation_driver import make_network, search, settle

KINDS = ("searched", "random", "encoder-decoder")
SHARED = {"scale": 0.25, "crop": 49, "scale_min": 0.75, "scale_max": 1.5, "class_weights": True, "batch_size": 4}
LAYERS = 8
SEARCH = SHARED | {"filters": 4, "layers": LAYERS, "arch_lr": 0.02}
TRAINING = SHARED | {"filters": 8, "atrous": "separable", "lr": 0.05, "drop_path": 0.0}


def main() -> None:
    options = parse()
    found = searched(options)
    table = Table("network", "val mIOU, mean", "deviation", "each", "parameters", "CPU time each, s")
    for kind in options.kinds:
        rows = [trained(kind, seed, found, options) for seed in options.seeds]
        scores = torch.tensor([row["val_miou"] for row in rows])
        table.add_row(
            kind,
            f"{scores.mean():.1%}",
            f"{scores.std():.1%}" if len(rows) > 1 else "",
            ", ".join(f"{score:.1%}" for score in scores),
            ", ".join(f"{row['parameters']:,}" for row in rows),
            ", ".join(f"{row['cpu_seconds']:.0f}" for row in rows),
        )
    Console(width=140).print(table)


def searched(options: argparse.Namespace) -> AutoDeepLabGenotype | None:
    """What the search found; None if nobody asks for it."""
    out = options.out / "search"
    if set(options.kinds) == {"random"}:
        return None
    if not (out / "genotype.json").exists():
        where = {"data": f"camvid:{options.camvid}", "threads": options.threads}
        search(TrellisSearchConfig(**SEARCH, **where, epochs=options.search_epochs), out, started(out))
    return load(out / "genotype.json", AutoDeepLabGenotype)


def trained(kind: str, seed: int, found: AutoDeepLabGenotype | None, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one network, unless that has been done: its scores after the last epoch, and what it took."""
    out = options.out / f"{kind}-{seed}"
    path = out / "result.json"
    if not path.exists():
        start = time.process_time()
        where = {"data": f"camvid:{options.camvid}", "threads": options.threads, "seed": seed}
        run = Run(out, "retrain auto-deeplab")
        config = settle(run.check(TrellisRetrainConfig(**TRAINING, **where, epochs=options.epochs), started(out)))
        data = load_segmentation(config.data, config.scale)
        with reproducible(config) as device:
            network = make(kind, found, config, data).to(device)
            task = Training(network, data, config)
            run.begin(config, data.describe())
            run_epochs(run, task, config.epochs, [], None)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            result = {**task.score(), "parameters": parameters, "cpu_seconds": time.process_time() - start}
        write_atomically(path, (json.dumps(result) + "\n").encode())
        print(kind, seed, result, flush=True)
    return json.loads(path.read_text())


def make(
    kind: str, found: AutoDeepLabGenotype | None, config: TrellisRetrainConfig, data: SegmentationData
) -> nn.Module:
    if kind == "random":
        return make_network(random_auto_deeplab(config.seed, DARTS_CANDIDATES, LAYERS), config, data)
    assert found is not None
    network = make_network(found, config, data)
    if kind == "searched":
        return network
    return EncoderDecoder.of_size(sum(parameter.numel() for parameter in network.parameters()), len(data.classes))


class Training(AutoDeepLabRetraining):
    """Validated once, after the last epoch: no epoch is chosen by the validation images."""

    def validate(self) -> dict[str, float]:
        return {}

    def score(self) -> dict[str, float]:
        return super().validate()


def started(out: Path) -> bool:
    """Whether there is a run to go on with."""
    return (out / "config.json").exists()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path, help="folder of CamVid, see docs/segmentation-data.md")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--search-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=5, help="of every training")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    main()
