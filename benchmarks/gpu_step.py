"""Whole steps of a search network on a GPU: time and memory, fastnas against stock PyTorch.

    python benchmarks/gpu_step.py                                 # DARTS, C=16, L=8, 32x32, batch 64, on cuda:0
    python benchmarks/gpu_step.py --network auto-deeplab          # F=8, L=12, crop 321, batch 2
    python benchmarks/gpu_step.py --batch 16 64 --compile 1800 --json gpu.json

Without a GPU it says so and does nothing. `--device cpu` runs the same code on the CPU, to try it; memory is a GPU's
only.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from contestants import FAST, LEAN, STOCK, STOCK_LAST, Contestant, Setting, Sizes, TrellisSetting, make
from isolated import isolated, reason
from machine import machine
from rich.console import Console
from rich.table import Table
from timing import WARM_UP

COMPILED = "stock compiled"
NAMES = (STOCK, STOCK_LAST, FAST, LEAN)
NETWORKS = {
    "darts": (Setting, {"batch": [64], "channels": 16, "layers": 8, "size": 32}),
    "auto-deeplab": (TrellisSetting, {"batch": [2], "channels": 8, "layers": 12, "size": 321}),
}


@dataclass
class Figures:
    """Of one network: seconds of every round, and bytes above what was allocated before."""

    seconds: list[float]
    saved: int = 0
    peak: int = 0


def make_on(device: torch.device, name: str, setting: Sizes, backend: str = "auto") -> Contestant:
    """The contestant with network and batches on the device."""
    contestant = make(name, setting, backend=backend)
    contestant.network.to(device)
    contestant.training = tuple(t.to(device) for t in contestant.training)
    contestant.validation = tuple(t.to(device) for t in contestant.validation)
    return contestant


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """Time of one step, until the device has done it."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def memory(contestant: Contestant, device: torch.device) -> tuple[int, int]:
    """Bytes that a forward leaves allocated, and the most that forward + backward had, above what was there before."""
    if device.type != "cuda":
        return 0, 0
    contestant.clear_gradients()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    loss = contestant.loss(contestant.training)
    saved = torch.cuda.memory_allocated(device) - before
    loss.backward()
    return saved, torch.cuda.max_memory_allocated(device) - before


def measure(setting: Sizes, device: torch.device, backend: str, rounds: int) -> dict[str, Figures | str]:
    """Forward + backward of every network, in turn, or why it failed."""
    found: dict[str, Figures | str] = {}
    steps: dict[str, Callable[[], None]] = {}
    for name in NAMES:
        found[name] = prepare(device, name, setting, backend, steps)
    for turn in range(rounds + WARM_UP):
        for name in random.Random(turn).sample(list(steps), len(steps)):
            taken = seconds(steps[name], device)
            if turn >= WARM_UP:
                found[name].seconds.append(taken)
    return found


def prepare(
    device: torch.device, name: str, setting: Sizes, backend: str, steps: dict[str, Callable[[], None]]
) -> Figures | str:
    """Memory of a network, whose step joins `steps`; or why there is none."""
    try:
        contestant = make_on(device, name, setting, backend)
        contestant.forward_backward()
        steps[name] = contestant.forward_backward
        return Figures([], *memory(contestant, device))
    except (RuntimeError, ValueError) as error:
        return reason(error)


def compiled(setting: Sizes, device: str, rounds: int) -> Figures:
    """The same of stock under torch.compile; runs in a process with a time limit."""
    place = torch.device(device)
    contestant = make_on(place, STOCK, setting)
    contestant.network = torch.compile(contestant.network)
    for _ in range(2):
        contestant.forward_backward()
    used = memory(contestant, place)
    return Figures([seconds(contestant.forward_backward, place) for _ in range(rounds)], *used)


def table(setting: Sizes, found: dict[str, Figures | str]) -> Table:
    """One row a network, each with how many times as much stock needs."""
    result = Table("network", title=str(setting), title_justify="left")
    for heading in (
        "forward + backward",
        "images / s",
        "stock / this",
        "saved",
        "stock / this",
        "peak",
        "stock / this",
    ):
        result.add_column(heading, justify="right")
    stock = found[STOCK]
    for name, figures in found.items():
        if isinstance(figures, str):
            result.add_row(name, figures)
            continue
        taken = median(figures.seconds)
        row = [f"{taken * 1e3:.1f} ms", f"{setting.batch / taken:.1f}", _ratio(stock, taken, "seconds")]
        for what in ("saved", "peak"):
            value = getattr(figures, what)
            row += [f"{value / 1e6:.1f} MB", _ratio(stock, value, what)] if value else ["-", "-"]
        result.add_row(name, *row)
    return result


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="darts")
    parser.add_argument("--batch", type=int, nargs="+", help="one or more (default 64, or 2)")
    parser.add_argument("--channels", type=int, help="width: C of DARTS, F of Auto-DeepLab (default 16, or 8)")
    parser.add_argument("--layers", type=int, help="default 8, or 12")
    parser.add_argument("--size", type=int, help="height and width of the images (default 32, or 321)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--backend", default="auto", help="triton, cuda, or auto")
    parser.add_argument("--compile", type=float, metavar="SECONDS", help="also stock under torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    kind, defaults = NETWORKS[parser.parse_args().network]
    parser.set_defaults(**defaults)
    words = parser.parse_args()
    console, device = Console(), torch.device(words.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        console.print("no CUDA device: nothing was measured")
        return
    # Stock's convolutions would round to ten bits otherwise.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    for name, value in machine(torch.get_num_threads()).items():
        console.print(f"{name}: {value}", markup=False, highlight=False)
    results = {}
    for batch in words.batch:
        setting = kind(words.channels, words.layers, words.size, batch)
        found = measure(setting, device, words.backend, words.rounds)
        if words.compile:
            found[COMPILED] = isolated(compiled, setting, words.device, words.rounds, limit=words.compile)
        console.print(table(setting, found))
        results[str(setting)] = {n: f if isinstance(f, str) else vars(f) for n, f in found.items()}
    if words.json:
        words.json.write_text(json.dumps({"machine": machine(torch.get_num_threads()), "results": results}, indent=1))


def _ratio(stock: Figures | str, value: float, what: str) -> str:
    if isinstance(stock, str):
        return "-"
    of_stock = median(stock.seconds) if what == "seconds" else getattr(stock, what)
    return f"{of_stock / value:.2f}x"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
