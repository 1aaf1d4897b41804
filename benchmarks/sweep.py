"""One mixed edge over many shapes, forward and backward: fastnas against both layouts of stock PyTorch.

    python benchmarks/sweep.py                                          # every shape below --elements
    python benchmarks/sweep.py --channels 16 64 --sizes 7 14 --batch 8 --json sweep.json

docs/benchmarks.md says how to read it.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import stock
import torch
from contestants import FAST, STOCK, STOCK_LAST
from isolated import isolated
from machine import machine
from modules import forward_backward
from rich.console import Console
from step import positive, save
from timing import interleaved

from fastnas.nn import MixedOp

NAMES = (STOCK, STOCK_LAST, FAST)
CHANNELS = [4, 8, 16, 24, 32, 64, 128, 256]
SIZES = [1, 2, 7, 8, 14, 15, 28, 32, 56, 112, 224]
ELEMENTS = 4e6
MIN_ROUNDS, MAX_ROUNDS = 3, 51
EVEN_ONLY = "even sizes only"
COLUMN = 25  # wide enough for why a process returned nothing
QUICK = {"channels": [4], "sizes": [1, 7, 8], "batch": [1], "seconds": 0.01, "threads": 1}


@dataclass(frozen=True)
class Shape:
    """An edge of stride `stride` on images (batch, channels, size, size)."""

    batch: int
    channels: int
    size: int
    stride: int

    @property
    def elements(self) -> int:
        return self.batch * self.channels * self.size**2

    @property
    def values(self) -> int:
        """That a batch norm of the edge normalises in each channel; it needs more than one."""
        return self.batch * (-(-self.size // self.stride)) ** 2

    @property
    def names(self) -> tuple[str, ...]:
        """Who can compute it: stock's factorised reduce halves even sizes only."""
        return (FAST,) if self.stride == 2 and self.size % 2 else NAMES


@dataclass(frozen=True)
class Row:
    """Seconds of each round at one shape, or why there are none, by contestant."""

    shape: Shape
    seconds: dict[str, list[float] | str]

    def median(self, name: str) -> float | str:
        found = self.seconds.get(name, EVEN_ONLY)
        return found if isinstance(found, str) else median(found)

    @property
    def ratio(self) -> float | None:
        """How many times as much the faster stock layout needs; None where there is nothing to compare."""
        ours = self.median(FAST)
        theirs = [t for t in (self.median(STOCK), self.median(STOCK_LAST)) if not isinstance(t, str)]
        return min(theirs) / ours if theirs and not isinstance(ours, str) else None

    @property
    def lost(self) -> bool:
        """Whether a stock layout is faster, or we fail."""
        return isinstance(self.median(FAST), str) or (self.ratio is not None and self.ratio < 1)

    def document(self) -> dict[str, object]:
        medians = {name: self.median(name) for name in NAMES}
        return {**vars(self.shape), "medians": medians, "ratio": self.ratio, "seconds": self.seconds}


def main() -> None:
    options = parse()
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    document: dict[str, object] = {"machine": machine(options.threads)}
    for key, value in document["machine"].items():
        console.print(f"{key}: {value}", markup=False)
    names = "".join(f"{name:>{COLUMN}}" for name in NAMES)
    console.print(f"{'images':>22} {'stride':>6} {'':4}{names}{'ratio':>9}")
    rows: list[Row] = []
    for shape in shapes(options):
        rows.append(measure(shape, options.seconds, options.threads))
        console.print(text(rows[-1]), style="bold red" if rows[-1].lost else None)
        save(document | {"rows": [row.document() for row in rows]}, options.json)
    console.print(summary(rows))


def shapes(options: argparse.Namespace) -> Iterator[Shape]:
    """Those within the budget that batch norm can normalise."""
    for sizes in itertools.product(options.batch, options.channels, options.sizes, options.strides):
        shape = Shape(*sizes)
        if shape.elements <= options.elements and shape.values > 1:
            yield shape


def measure(shape: Shape, seconds: float, threads: int) -> Row:
    """In a process of its own, since stock PyTorch 2.13 corrupts its heap at some shapes in channels_last.

    Where the process dies, or does not finish, a second one does without that layout.
    """
    limit = 120 + 30 * seconds  # many times what a shape takes that comes back
    found = isolated(measure_here, shape, shape.names, seconds, threads, limit=limit)
    if isinstance(found, str) and STOCK_LAST in shape.names:
        others = isolated(measure_here, shape, (STOCK, FAST), seconds, threads, limit=limit)
        found = {FAST: others} if isinstance(others, str) else {**others, STOCK_LAST: found}
    return Row(shape, {FAST: found} if isinstance(found, str) else found)


def measure_here(shape: Shape, names: tuple[str, ...], seconds: float, threads: int) -> dict[str, list[float] | str]:
    """In turn, in one process, for about `seconds`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    edge = stock.MixedOp(shape.channels, shape.stride)
    images = torch.randn(shape.batch, shape.channels, shape.size, shape.size)
    steps = {
        name: forward_backward(
            name,
            deepcopy(edge),
            lambda memory: MixedOp(shape.channels, shape.stride, memory=memory),
            [images.clone()],
            torch.full((stock.CANDIDATES,), 1 / stock.CANDIDATES),
        )
        for name in names
    }
    first = interleaved(steps, 1)
    once = sum(t[0] for t in first.values() if not isinstance(t, str))
    rounds = MAX_ROUNDS if once == 0 else min(MAX_ROUNDS, max(MIN_ROUNDS, round(seconds / once)))
    return interleaved(steps, rounds, warm_up=0)


def text(row: Row) -> str:
    shape = row.shape
    images = f"{shape.batch} x {shape.channels} x {shape.size} x {shape.size}"
    times = [row.median(name) for name in NAMES]
    cells = "".join(f"{t if isinstance(t, str) else f'{t * 1e3:.2f} ms':>{COLUMN}.{COLUMN - 1}}" for t in times)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    return f"{images:>22} {shape.stride:>6} {'LOST' if row.lost else '':4}{cells}{ratio:>9}"


def summary(rows: list[Row]) -> str:
    ratios = sorted(row.ratio for row in rows if row.ratio is not None)
    lost = sum(row.lost for row in rows)
    if not ratios:
        return f"{len(rows)} shapes, none of which stock computes"
    return (
        f"{len(rows)} shapes, {len(ratios)} compared with the faster stock layout, {lost} lost; "
        f"ratios from {ratios[0]:.2f}x to {ratios[-1]:.2f}x, median {median(ratios):.2f}x"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=positive, nargs="+", default=CHANNELS, help="even numbers")
    parser.add_argument("--sizes", type=positive, nargs="+", default=SIZES, help="height and width")
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 8])
    parser.add_argument("--strides", type=int, choices=[1, 2], nargs="+", default=[1, 2])
    parser.add_argument("--elements", type=float, default=ELEMENTS, help="N*C*H*W at most (default 4e6); inf for all")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=2, help=f"for a shape; at least {MIN_ROUNDS} rounds run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--quick", action="store_true", help="few tiny shapes: shows that everything runs")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args()
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if any(channels % 2 for channels in options.channels):
        parser.error("--channels must be even: a factorised reduce has two halves")
    return options


if __name__ == "__main__":
    main()
