"""Predictions of `fastnas plan` beside what is then measured, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import stock
import stock_trellis
import torch
import torch.nn.functional as F
from isolated import isolated
from torch import nn

from fastnas.measure import peak, saved_for_backward
from fastnas.nn import AutoDeepLabSupernet, DartsSupernet
from fastnas.ops import release_workspaces
from fastnas.plan import STOCK, Size, StockEngine, make_engine, plan_step
from fastnas.plan.networks import Described

DARTS, TRELLIS = "darts", "auto-deeplab"
SETTINGS = (
    (DARTS, "fast", Size(16, 32, 32)),
    (DARTS, "lean", Size(16, 32, 32)),
    (DARTS, "fast", Size(64, 32, 32)),
    (DARTS, "lean", Size(64, 32, 32)),
    (DARTS, "fast", Size(17, 33, 31)),
    (DARTS, "lean", Size(40, 33, 31)),
    (TRELLIS, "fast", Size(2, 129, 129)),
    (TRELLIS, "lean", Size(2, 129, 129)),
    (TRELLIS, "fast", Size(1, 321, 321)),
    (TRELLIS, "lean", Size(1, 321, 321)),
    (TRELLIS, "fast", Size(3, 97, 161)),
    (TRELLIS, "lean", Size(2, 193, 193)),
)
STOCK_SETTINGS = ((DARTS, STOCK, Size(16, 32, 32)), (TRELLIS, STOCK, Size(2, 65, 65)))
# What glibc's allocator cannot give back to the system for fragments is no part of a prediction: larger tensors are
# mapped each by itself.
THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Memory:
    """Bytes: saved for backward, and the rise to the peak of forward + backward over what was there before."""

    saved: int
    peak: int


def predicted(kind: str, mode: str, size: Size, threads: int) -> Memory:
    network = Described(kind)
    engine = StockEngine() if mode == STOCK else make_engine("cpu", threads, network)
    step = plan_step(network, size, engine, mode)
    return Memory(step.saved, step.peak - step.before)


def measured(kind: str, mode: str, size: Size, threads: int) -> Memory:
    """Of the second step, in a fresh process only."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = _network(kind, mode)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network(images), labels)

    def clear() -> None:
        network.zero_grad(set_to_none=True)
        release_workspaces()

    labels = (size.batch, size.height, size.width) if kind == TRELLIS else (size.batch,)
    given = torch.randn(size.batch, 3, size.height, size.width), torch.randint(10, labels)
    step(*given).backward()  # libraries compile for these shapes, and keep that
    clear()
    highest = peak(lambda: step(*given).backward())
    clear()
    existing = [*given, *network.parameters(), *network.buffers()]
    return Memory(saved_for_backward(lambda: step(*given), existing).storages, highest)


def _network(kind: str, mode: str) -> nn.Module:
    if mode == STOCK:
        return stock.Network() if kind == DARTS else stock_trellis.Network()
    return DartsSupernet(memory=mode) if kind == DARTS else AutoDeepLabSupernet(memory=mode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stock", action="store_true", help="stock networks as well")
    parser.add_argument("--default-malloc", action="store_true", help="leave glibc's allocator as it is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.default_malloc:
        os.environ.update(THRESHOLD)
    print("| network | mode | batch, size | saved, MB | measured | | peak, MB | measured | |")
    print("|---|---|---|---|---|---|---|---|---|")
    records = []
    for kind, mode, size in SETTINGS + (STOCK_SETTINGS if options.stock else ()):
        expected = predicted(kind, mode, size, options.threads)
        found = isolated(measured, kind, mode, size, options.threads)
        if isinstance(found, str):
            print(f"| {kind} | {mode} | {size} | {found} |", flush=True)
            continue
        cells = []
        for name in ("saved", "peak"):
            said, seen = getattr(expected, name), getattr(found, name)
            cells += [f"{said / 1e6:.1f}", f"{seen / 1e6:.1f}", f"{said / seen - 1:+.1%}"]
        print(f"| {kind} | {mode} | {size} | {' | '.join(cells)} |", flush=True)
        setting = {"network": kind, "mode": mode, **asdict(size)}
        records.append(setting | {"predicted": asdict(expected), "measured": asdict(found)})
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
