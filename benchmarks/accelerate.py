"""What `fastnas.accelerate` makes of supernets in other people's styles: time, saved and peak memory of a step.

    python benchmarks/accelerate.py                     # every style
    python benchmarks/accelerate.py DARTS --json result.json

`DARTS` is the paper's search network of 8 cells, `Auto-DeepLab` that of 12 layers; the other networks are the small
ones of tests/foreign_networks.py. Seconds that `accelerate` takes include its own measurements of time and memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import stock
import stock_trellis
import torch
from contestants import STOCK, STOCK_LAST
from isolated import isolated
from machine import machine
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from timing import interleaved
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

import fastnas
from fastnas.measure import peak, saved_for_backward
from fastnas.nn import AutoDeepLabSupernet, DartsSupernet, TrellisCell
from fastnas.nn.pc_darts import PCDartsCell
from fastnas.ops import release_workspaces
from fastnas.ops.functional import MEMORY_MODES

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import foreign
import foreign_networks

OWN = "fastnas.nn"


@dataclass(frozen=True)
class Style:
    """A module as other people write it, arguments for it, and what of ours computes the same, where there is any."""

    stock: Callable[[], nn.Module]
    arguments: Callable[[], tuple[object, ...]]
    own: Callable[[str], nn.Module] | None = None
    own_arguments: Callable[[tuple[object, ...]], tuple[object, ...]] = lambda arguments: arguments


def images(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def rows(*shape: int) -> Tensor:
    return torch.rand(*shape).requires_grad_()


def network(make: Callable[[], nn.Module]) -> Style:
    """A small network of the tests, in the style of some public code."""
    return Style(make, lambda: (torch.randn(16, 3, 32, 32),))


def trellis_cell(size: int) -> Style:
    """A cell of Auto-DeepLab at scale 4 with all its paths, two images."""
    return Style(
        lambda: foreign.TrellisCell(8, steps=5),
        lambda: (
            images(2, 12, size, size),
            images(2, 6, 2 * size - 1, 2 * size - 1),
            images(2, 12, size, size),
            images(2, 24, size // 2 + 1, size // 2 + 1),
            rows(20, 8),
        ),
        lambda memory: TrellisCell(12, (6, 12, 24), 8, memory=memory),
        lambda a: (a[0], list(a[1:4]), a[4], torch.ones(3)),
    )


STYLES = {
    "DARTS": Style(stock.Network, lambda: (torch.randn(16, 3, 32, 32),), lambda memory: DartsSupernet(memory=memory)),
    "Auto-DeepLab": Style(
        stock_trellis.Network,
        lambda: (torch.randn(2, 3, 129, 129),),
        lambda memory: AutoDeepLabSupernet(num_classes=19, memory=memory),
    ),
    "PC-DARTS cell": Style(
        lambda: foreign.PCCell(64, 64),
        lambda: (images(16, 64, 32, 32), images(16, 64, 32, 32), rows(5, 8), rows(5)),
        lambda memory: PCDartsCell(64, 64, 16, False, False, steps=2, memory=memory),
    ),
    "Auto-DeepLab cell": trellis_cell(33),  # of crop 129
    "Auto-DeepLab cell, crop 321": trellis_cell(81),
    "alphas outside": network(foreign_networks.Darts),
    "partial channels, weighted edges": network(foreign_networks.PCDarts),
    "several paths and scales": network(foreign_networks.Trellis),
    "no forward of a cell's own": network(foreign_networks.NamedEdges),
    "one candidate sampled": network(lambda: foreign_networks.NamedEdges(sampled=True)),
    "biased convolutions": network(lambda: foreign_networks.NamedEdges(bias=True)),
    "dag[i][j], alphas around": network(foreign_networks.Controller),
    "alphas inside, bare pools": network(foreign_networks.OwnWeights),
    "candidates of each edge, dropout": network(foreign_networks.Progressive),
}


def contestant(style: Style, name: str) -> tuple[nn.Module, tuple[object, ...], float]:
    """A module, its arguments, and the seconds that `accelerate` took."""
    torch.manual_seed(0)
    arguments = style.arguments()
    if name.startswith(OWN):
        assert style.own is not None
        return style.own(name.rsplit(maxsplit=1)[-1]), style.own_arguments(arguments), 0.0
    module = style.stock()
    if name == STOCK_LAST:
        module = module.to(memory_format=torch.channels_last)
        arguments = tree_map(_channels_last, arguments)
    start = time.perf_counter()
    if name in MEMORY_MODES:
        report = fastnas.accelerate(module, memory=name, example_inputs=arguments)
        if not report.fused:
            raise RuntimeError(str(report))
    return module, arguments, time.perf_counter() - start


def _channels_last(leaf: object) -> object:
    if isinstance(leaf, Tensor) and leaf.ndim == 4:
        return leaf.detach().contiguous(memory_format=torch.channels_last).requires_grad_(leaf.requires_grad)
    return leaf


def step_of(module: nn.Module, arguments: tuple[object, ...]) -> Callable[[], None]:
    """Forward and backward with every gradient."""
    parameters = list(module.parameters())  # `zero_grad` walks thousands of modules first; optimisers do not

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        results = [t for t in tree_flatten(module(*arguments))[0] if isinstance(t, Tensor)]
        torch.autograd.backward(results, [torch.ones_like(t) for t in results])

    return step


def memory(style: str, name: str, threads: int) -> dict[str, float]:
    """Bytes that a step saves and its peak; seconds of `accelerate`. In a fresh process."""
    torch.set_num_threads(threads)
    module, arguments, seconds = contestant(STYLES[style], name)
    step = step_of(module, arguments)
    if name not in MEMORY_MODES:  # what libraries allocate on first use; accelerate has run the module already
        step()
    known = [t for t in tree_flatten(arguments)[0] if isinstance(t, Tensor)]
    known += [*module.parameters(), *module.buffers()]
    saved = saved_for_backward(lambda: module(*arguments), known).storages
    release_workspaces()
    module.zero_grad(set_to_none=True)
    return {"saved": saved, "peak": peak(step), "accelerate": seconds}


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, object]]:
    style = STYLES[name]
    names = [STOCK, STOCK_LAST, *MEMORY_MODES, *([f"{OWN} {mode}" for mode in MEMORY_MODES] if style.own else [])]
    figures: dict[str, dict[str, object]] = {}
    for contestant_name in names:
        found = isolated(memory, name, contestant_name, options.threads, limit=options.limit)
        figures[contestant_name] = {"failure": found} if isinstance(found, str) else dict(found)
    names = [n for n in names if "failure" not in figures[n]]
    timed = isolated(step_times, name, names, options.rounds, options.threads, limit=options.limit)
    if isinstance(timed, str) and STOCK_LAST in names:  # PyTorch 2.13 corrupts its heap at some shapes in channels_last
        figures[STOCK_LAST] = {"failure": timed}
        names.remove(STOCK_LAST)
        timed = isolated(step_times, name, names, options.rounds, options.threads, limit=options.limit)
    if isinstance(timed, str):
        raise RuntimeError(f"{name}: {timed}")
    for contestant_name, seconds in timed.items():
        figures[contestant_name]["seconds"] = seconds
    return figures


def step_times(style: str, names: list[str], rounds: int, threads: int) -> dict[str, list[float] | str]:
    """Seconds of the steps of each round, in turns. In a process that may be lost."""
    torch.set_num_threads(threads)
    return interleaved({name: step_of(*contestant(STYLES[style], name)[:2]) for name in names}, rounds)


def table(name: str, figures: dict[str, dict[str, object]]) -> Table:
    shown = Table(escape(name), title_justify="left")
    for heading in ("a step", "stock / this", "channels_last / this", "saved", "peak", "accelerate took"):
        shown.add_column(heading, justify="right")
    times = {n: median(f["seconds"]) for n, f in figures.items() if isinstance(f.get("seconds"), list)}
    for n, f in figures.items():
        if n not in times:
            shown.add_row(n, str(f.get("failure", f.get("seconds"))))
            continue
        ratios = [f"{times[base] / times[n]:.1f}x" if base in times else "-" for base in (STOCK, STOCK_LAST)]
        sizes = [f"{f[quantity] / 1e6:.2f} MB" for quantity in ("saved", "peak")]
        took = f"{f['accelerate']:.1f} s" if n in MEMORY_MODES else ""
        shown.add_row(n, f"{times[n] * 1e3:.1f} ms", *ratios, *sizes, took)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("styles", nargs="*", metavar="STYLE", help=f"of {', '.join(STYLES)} (default all)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count, after warm-up")
    parser.add_argument("--limit", type=float, default=600, help="seconds for the steps of a style")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args()
    if unknown := set(options.styles) - set(STYLES):
        parser.error(f"unknown style {min(unknown)!r}; there are {', '.join(STYLES)}")
    torch.set_num_threads(options.threads)
    console = Console(width=140)
    document: dict[str, object] = {"machine": machine(options.threads)}
    for name in options.styles or STYLES:
        document[name] = figures = measure(name, options)
        console.print(table(name, figures))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
