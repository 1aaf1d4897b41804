"""Does the search pay? On CamVid, networks found by a search, drawn at random, and a plain encoder-decoder.

    python benchmarks/camvid.py ../shared/data/camvid runs/camvid-study     # hours on two cores
    python benchmarks/camvid.py PATH OUT --seeds 1 --search-epochs 4 --epochs 10

All have the same training budget, and the encoder-decoder as many parameters as the found network. The search and every
training can be interrupted: the same command goes on. Only train and val are used; the test split is never read.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from encoder_decoder import EncoderDecoder
from rich.console import Console
from rich.table import Table

from fastnas.data.segmentation import load_segmentation
from fastnas.genotype import AutoDeepLabGenotype, load
from fastnas.genotype.sample import random_auto_deeplab
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.auto_deeplab_retrain import AutoDeepLabRetraining
from fastnas.search.driver import reproducible, run_epochs
from fastnas.search.run import Run
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.segmentation_driver import retrain, search, settle

KINDS = ("searched", "random", "encoder-decoder")


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [study(kind, seed, options) for seed in range(options.seeds) for kind in KINDS]
    (options.out / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table("network", "val mIOU, mean", "deviation", "each", "parameters")
    for kind in KINDS:
        found = torch.tensor([row["miou"] for row in rows if row["kind"] == kind])
        deviation = f"{found.std():.1%}" if len(found) > 1 else ""
        parameters = ", ".join(f"{row['parameters']:,}" for row in rows if row["kind"] == kind)
        table.add_row(kind, f"{found.mean():.1%}", deviation, ", ".join(f"{m:.1%}" for m in found), parameters)
    Console(width=140).print(table)


def study(kind: str, seed: int, options: argparse.Namespace) -> dict[str, object]:
    """One network, trained; a run that is there already is gone on with, or only read."""
    start = time.perf_counter()
    out = options.out / f"{kind}-{seed}"
    source = f"camvid:{options.camvid}"
    config = TrellisRetrainConfig(
        data=source,
        scale=0.5,
        crop=options.crop,
        filters=options.filters,
        atrous="separable",
        batch_size=8,
        epochs=options.epochs,
        lr=0.1,
        drop_path=0.0,
        scale_min=0.75,
        scale_max=1.5,
        seed=seed,
        threads=options.threads,
    )
    result = json.loads((out / "result.json").read_text()) if (out / "result.json").exists() else None
    if result is None and kind == "encoder-decoder":
        parameters = json.loads((options.out / f"searched-{seed}/result.json").read_text())["parameters"]
        result = train_baseline(parameters, config, out)
    elif result is None:
        genotype = searched(seed, source, options) if kind == "searched" else drawn(seed, options)
        result = retrain(genotype, config, out, resume=(out / "config.json").exists())
    print(f"{kind} {seed}: mIOU {result['best_val_miou']:.1%}, {time.perf_counter() - start:.0f} s", flush=True)
    return {"kind": kind, "seed": seed, "miou": result["best_val_miou"], "parameters": result["parameters"]}


def searched(seed: int, source: str, options: argparse.Namespace) -> AutoDeepLabGenotype:
    out = options.out / f"search-{seed}"
    if (out / "genotype.json").exists():
        return load(out / "genotype.json", AutoDeepLabGenotype)
    config = TrellisSearchConfig(
        data=source,
        scale=0.5,
        crop=options.crop,
        filters=options.filters,
        layers=options.layers,
        epochs=options.search_epochs,
        arch_lr=0.01,
        memory="lean",
        seed=seed,
        threads=options.threads,
    )
    return search(config, out, resume=(out / "config.json").exists())


def drawn(seed: int, options: argparse.Namespace) -> AutoDeepLabGenotype:
    return random_auto_deeplab(seed, DARTS_CANDIDATES, options.layers)


def train_baseline(parameters: int, config: TrellisRetrainConfig, out: Path) -> dict[str, object]:
    """The same recipe for an encoder-decoder of as many parameters."""
    run = Run(out, "retrain auto-deeplab")
    config = settle(run.check(config, (out / "config.json").exists()))
    data = load_segmentation(config.data, config.scale)
    with reproducible(config) as device:
        network = EncoderDecoder.of_size(parameters, len(data.classes)).to(device)
        task = AutoDeepLabRetraining(network, data, config)
        run.begin(config, data.describe())
        history = run_epochs(run, task, config.epochs, [], None)
    result = {
        "best_val_miou": max(row["val_miou"] for row in history),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    (out / "result.json").write_text(json.dumps(result) + "\n")
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path, help="folder of CamVid, see docs/segmentation-data.md")
    parser.add_argument("out", type=Path, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--search-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=30, help="of every training")
    parser.add_argument("--filters", type=int, default=4)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--crop", type=int, default=97)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    main()
