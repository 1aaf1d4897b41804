"""Whole steps of a search network: time, memory and error, fastnas against stock PyTorch.

    python benchmarks/step.py                                   # DARTS, C=16, L=8, 32x32, batch 16
    python benchmarks/step.py --network auto-deeplab            # F=8, L=12, crop 129, batch 2
    python benchmarks/step.py --batch 16 64 --checkpointed --scaling --json result.json

docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accuracy import errors
from compiled import COMPILED, compiled_seconds
from contestants import FAST, LEAN, MEMORY, STOCK, STOCK_CHECKPOINTED, STOCK_LAST, Setting, Sizes, TrellisSetting, make
from isolated import OUT_OF_MEMORY, isolated
from machine import machine
from memory import QUANTITIES, memory
from report import Results, errors_table, results_table, scaling_table
from rich.console import Console
from timing import interleaved

from fastnas.threads import using_threads

FORWARD_BACKWARD = "forward + backward"
ONE_THREAD = "forward + backward, 1 thread"
SEARCH = "search step"
SEARCH_PHASE_AWARE = "search step, stock phase-aware too"
DEFAULTS = {
    "darts": {"batch": [16], "channels": 16, "layers": 8, "size": 32},
    "auto-deeplab": {"batch": [2], "channels": 8, "layers": 12, "size": 129},
}
QUICK = {"batch": [2], "channels": 4, "layers": 3, "size": 16, "rounds": 2, "seeds": 1}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    names = [STOCK, STOCK_LAST, *([STOCK_CHECKPOINTED] if options.checkpointed else []), FAST, LEAN]
    console = Console(width=140)
    document = {"machine": machine(options.threads), "results": []}
    for key, value in document["machine"].items():
        console.print(f"{key}: {value}", highlight=False, markup=False)
    for batch in options.batch:
        results = measure(names, setting_of(options, batch), options)
        console.print(results_table(results))
        if options.scaling:
            console.print(scaling_table(results, ONE_THREAD, FORWARD_BACKWARD))
        document["results"].append({**asdict(results), "medians": results.medians()})
        save(document, options.json)
    compared = [STOCK, FAST, LEAN]
    setting = setting_of(options, options.batch[0])
    document["errors"] = isolated(errors, compared, setting, options.seeds, options.threads)
    console.print(errors_table(document["errors"], compared, f"against float64, {setting}, {options.seeds} seeds"))
    save(document, options.json)


def setting_of(options: argparse.Namespace, batch: int) -> Sizes:
    sizes = (options.channels, options.layers, options.size, batch)
    return TrellisSetting(*sizes, options.atrous) if options.network == "auto-deeplab" else Setting(*sizes)


def measure(names: Sequence[str], setting: Sizes, options: argparse.Namespace) -> Results:
    """Memory first, each network in a process of its own: what does not fit there is not timed here."""
    results = Results(setting)
    too_large: dict[str, str] = {}
    for name in names:
        found = isolated(memory, name, setting, options.threads)
        if isinstance(found, str) and found.startswith(OUT_OF_MEMORY):
            too_large[name] = found
        for quantity in QUANTITIES:
            results.bytes.setdefault(quantity, {})[name] = found if isinstance(found, str) else found[quantity]
    fitting = [name for name in names if name not in too_large]
    for quantity, times in timed(fitting, setting, options).items():
        results.seconds[quantity] = {name: times.get(name, too_large.get(name, "")) for name in names}
    if options.compile:
        found = isolated(compiled_seconds, setting, options.threads, options.rounds, limit=options.compile)
        results.seconds[FORWARD_BACKWARD][COMPILED] = found
    return results


def timed(names: Sequence[str], setting: Sizes, options: argparse.Namespace) -> dict[str, dict[str, list[float] | str]]:
    """Seconds of each round by quantity and contestant."""
    contestants = {name: make(name, setting) for name in names}
    whole = {name: c.forward_backward for name, c in contestants.items()}
    times = {FORWARD_BACKWARD: interleaved(whole, options.rounds)}
    if options.scaling:
        with using_threads(1):
            times[ONE_THREAD] = interleaved(whole, options.rounds)
    if options.forward_backward_only:
        return times
    aware = {name: c.search_step(phase_aware=True) for name, c in contestants.items()}
    public = {
        f"{name}, public": c.search_step(phase_aware=False) for name, c in contestants.items() if name not in MEMORY
    }
    found = interleaved(aware | public, options.rounds)
    times[SEARCH] = {name: found.get(f"{name}, public", found[name]) for name in names}
    times[SEARCH_PHASE_AWARE] = {name: found[name] for name in names}
    return times


def save(document: dict[str, object], path: Path | None) -> None:
    if path:
        path.write_text(json.dumps(document, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=DEFAULTS, default="darts")
    parser.add_argument("--atrous", choices=["separable", "dense"], default="separable", help="of auto-deeplab")
    parser.add_argument("--batch", type=positive, nargs="+", help="one or more (default 16, or 2)")
    parser.add_argument("--channels", type=positive, help="width: C of DARTS, F of Auto-DeepLab (default 16, or 8)")
    parser.add_argument("--layers", type=positive, help="default 8, or 12")
    parser.add_argument("--size", type=positive, help="height and width of the images (default 32, or 129)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--rounds", type=positive, default=7, help="rounds that count, after warm-up")
    parser.add_argument("--seeds", type=positive, default=3, help="networks and batches for the errors")
    parser.add_argument("--checkpointed", action="store_true", help="also stock with per-edge checkpointing")
    parser.add_argument("--forward-backward-only", action="store_true", help="leave out the whole search step")
    parser.add_argument("--scaling", action="store_true", help="also with one thread")
    parser.add_argument(
        "--compile", type=positive, metavar="SECONDS", help="also stock under torch.compile, if it is done by then"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--quick", action="store_true", help="a tiny network, two rounds: shows that everything runs")
    given = parser.parse_args()
    parser.set_defaults(**(QUICK if given.quick else DEFAULTS[given.network]))
    options = parser.parse_args()
    if options.atrous == "dense" and options.network != "auto-deeplab":
        parser.error("--atrous dense goes with --network auto-deeplab")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    main()
