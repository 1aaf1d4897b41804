"""How far twenty steps of training lead from the original: with `fastnas.accelerate`, and in another layout alone.

    python benchmarks/training.py                       # every network
    python benchmarks/training.py DARTS --seeds 1 --json result.json

Every run starts from the same weights and sees the same images and labels: in each step α by Adam, then the weights by
SGD, as in DARTS' first order. What differs is rounding alone, and training amplifies it. Differences are those from
stock PyTorch in its default layout and the same dtype: of the losses of all steps the largest, and of α afterwards.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import stock
import torch
import torch.nn.functional as F
from contestants import STOCK, STOCK_LAST
from isolated import isolated
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fastnas
from fastnas.ops.functional import MEMORY_MODES

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import foreign_networks

DTYPES = {"float32": torch.float32, "float64": torch.float64}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "DARTS": stock.Network,
    "DARTS, small": foreign_networks.Darts,
    "PC-DARTS, small": foreign_networks.PCDarts,
    "Auto-DeepLab, small": foreign_networks.Trellis,
    "alphas inside the edges": foreign_networks.OwnWeights,
}

Trained = tuple[list[float], list[float]]
"""Losses of the steps, and all of α afterwards."""


def architecture(network: nn.Module) -> list[Tensor]:
    """α, and β where there is one, wherever a network has them."""
    if isinstance(network, stock.Network):
        return network.arch_parameters()
    found = [getattr(network, name, []) for name in ("alphas", "betas")]
    return [t for group in found for t in ([group] if isinstance(group, Tensor) else group)]


def train(name: str, run: str, dtype: str, options: argparse.Namespace) -> list[Trained]:
    """The training once for every seed. In a process of its own: PyTorch 2.13 corrupts its heap at some shapes."""
    torch.set_num_threads(options.threads)
    return [_train(NETWORKS[name], run, DTYPES[dtype], seed, options) for seed in range(options.seeds)]


def _train(
    make: Callable[[], nn.Module], run: str, dtype: torch.dtype, seed: int, options: argparse.Namespace
) -> Trained:
    torch.manual_seed(seed)
    layout = torch.channels_last if run == STOCK_LAST else torch.contiguous_format
    network = make().to(dtype=dtype, memory_format=layout)
    alphas = architecture(network)
    for alpha in alphas:
        alpha.data = alpha.data.to(dtype)  # also where it is not a parameter
    shape = (options.batch, 3, options.size, options.size)
    if run in MEMORY_MODES:
        fastnas.accelerate(network, run, torch.randn(shape, dtype=dtype), strict=True)
    owned = set(map(id, alphas))
    weights = [p for p in network.parameters() if id(p) not in owned]
    optimisers = (
        torch.optim.Adam(alphas, 3e-3, betas=(0.5, 0.999)),
        torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4),
    )
    losses = []
    torch.manual_seed(seed)
    for _ in range(options.steps):
        for optimiser in optimisers:
            images = torch.randn(shape, dtype=torch.float64).to(dtype=dtype, memory_format=layout)
            logits = network(images)
            loss = F.cross_entropy(logits, torch.randint(logits.shape[1], shape[:1]))
            for each in optimisers:  # a backward computes every gradient
                each.zero_grad()
            loss.backward()
            optimiser.step()
        losses.append(loss.item())
    return losses, [value for alpha in alphas for value in alpha.flatten().tolist()]


def difference(a: Sequence[Trained], b: Sequence[Trained]) -> dict[str, list[float]]:
    """Largest differences of losses and of α, for each seed."""
    pairs = list(zip(a, b, strict=True))
    return {
        what: [max(abs(x - y) for x, y in zip(one[i], other[i], strict=True)) for one, other in pairs]
        for i, what in enumerate(("loss", "alpha"))
    }


def measure(name: str, dtype: str, options: argparse.Namespace) -> dict[str, dict[str, list[float]] | str]:
    """Of each run; what a run failed with, if it did."""
    found = {
        run: isolated(train, name, run, dtype, options, limit=options.limit)
        for run in (STOCK, STOCK_LAST, *MEMORY_MODES)
    }
    exact = found.pop(STOCK)
    if isinstance(exact, str):
        raise RuntimeError(f"{name}: {exact}")
    return {run: trained if isinstance(trained, str) else difference(trained, exact) for run, trained in found.items()}


def table(steps: int) -> Table:
    shown = Table(f"network, {steps} steps", "dtype", "run", title_justify="left")
    for heading in ("loss, median", "largest", "α, median", "largest"):
        shown.add_column(heading, justify="right")
    return shown


def row(found: dict[str, list[float]] | str) -> list[str]:
    if isinstance(found, str):
        return [found]
    return [f"{statistic(found[what]):.1e}" for what in ("loss", "alpha") for statistic in (median, max)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)} (default all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=16, help="height and width of images")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--limit", type=float, default=1200, help="seconds for a run's seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"unknown network {min(unknown)!r}; there are {', '.join(NETWORKS)}")
    console = Console(width=140)
    shown = table(options.steps)
    document: dict[str, object] = {"machine": machine(options.threads)}
    for name in options.networks or NETWORKS:
        for dtype in options.dtypes:
            document[f"{name}, {dtype}"] = figures = measure(name, dtype, options)
            for run, found in figures.items():
                shown.add_row(name, dtype, run, *row(found))
    console.print(shown)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
