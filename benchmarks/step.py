"""Whole steps of the DARTS search network: time, memory and error, fastnas against stock PyTorch.

    python benchmarks/step.py                 # C=16, L=8, 32×32, batch 16
    python benchmarks/step.py --batch 16 64 --scaling --json result.json

Times are taken in one process, all contestants in turn, and are medians. Memory is taken in a fresh process for each
contestant.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accuracy import errors
from contestants import NAMES, Setting, make
from rich.console import Console
from rich.table import Table

from fastnas.measure import peak, saved_for_backward
from fastnas.ops import backends

STOCK, LAST, FAST, LEAN = "stock", "stock channels_last", "fastnas fast", "fastnas lean"
console = Console(width=120)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3, help="for the error against fp64")
    parser.add_argument("--checkpointed", action="store_true", help="also stock with per-edge checkpointing")
    parser.add_argument("--scaling", action="store_true", help="also with one thread")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(memory(options.memory_of, setting(options, options.batch[0]))))
        return
    header = machine(options)
    console.print(*(f"{key}: {value}" for key, value in header.items()), sep="\n")
    names = [name for name in NAMES if options.checkpointed or name != "stock checkpointed"]
    results = [measure(options, batch, names) for batch in options.batch]
    if options.json:
        options.json.write_text(json.dumps({"machine": header, "results": results}, indent=1) + "\n")


def setting(options: argparse.Namespace, batch: int) -> Setting:
    return Setting(options.channels, options.layers, options.size, batch)


def measure(options: argparse.Namespace, batch: int, names: list[str]) -> dict[str, object]:
    case = setting(options, batch)
    rows: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        rows[name] |= memory_in_fresh_process(name, options, batch)
    contestants = {name: make(name, case) for name in names}
    for column, steps in {
        "forward+backward": {name: c.forward_backward for name, c in contestants.items()},
        "search step": {name: c.search_step() for name, c in contestants.items()},
    }.items():
        for name, seconds in interleaved(steps, options.rounds).items():
            rows[name][column] = seconds
    if options.scaling:
        torch.set_num_threads(1)
        fused = {name: c.forward_backward for name, c in contestants.items() if name.startswith("fastnas")}
        for name, seconds in interleaved(fused, options.rounds).items():
            rows[name]["one thread"] = seconds
        torch.set_num_threads(options.threads)
    print_rows(case, rows, options)
    accuracy = errors(case, options.seeds)
    print_errors(accuracy)
    return {"setting": vars(case), "rows": rows, "errors": accuracy}


def interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each step, run in turn after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def memory(name: str, case: Setting) -> dict[str, float]:
    contestant = make(name, case)
    contestant.forward_backward()
    network = contestant.network
    network.zero_grad(set_to_none=True)
    existing = [contestant.images, contestant.labels, *network.parameters(), *network.buffers()]
    saved = saved_for_backward(lambda: network(contestant.images), existing)
    return {"saved": saved.storages, "resident": saved.resident, "peak": peak(contestant.forward_backward)}


def memory_in_fresh_process(name: str, options: argparse.Namespace, batch: int) -> dict[str, float]:
    size = {"--batch": batch, "--channels": options.channels, "--layers": options.layers, "--size": options.size}
    arguments = [str(word) for pair in size.items() for word in pair]
    command = [sys.executable, __file__, "--memory-of", name, "--threads", str(options.threads), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        console.print(f"memory of {name}: failed, {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
        return {}
    return dict(json.loads(done.stdout))


def print_rows(case: Setting, rows: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    title = f"C={case.channels} L={case.layers} {case.size}×{case.size} batch {case.batch}, {options.threads} threads"
    table = Table("quantity", *rows, title=title, title_justify="left")
    for column in ("forward+backward", "search step", "one thread"):
        if any(column in row for row in rows.values()):
            table.add_row(f"{column}, ms", *(_number(row.get(column), 1e3) for row in rows.values()))
            for base in (STOCK, LAST):
                table.add_row(f"  {base} is × slower", *_ratios(rows, base, column))
    table.add_row(
        "forward+backward, images/s", *(f"{case.batch / row['forward+backward']:.1f}" for row in rows.values())
    )
    for column in ("saved", "resident", "peak"):
        table.add_row(f"{column}, MB an image", *(_number(row.get(column), 1e-6 / case.batch) for row in rows.values()))
        table.add_row("  stock has × more", *_ratios(rows, STOCK, column))
    console.print(table)


def print_errors(accuracy: dict[str, dict[str, float]]) -> None:
    table = Table("largest error against fp64", *next(iter(accuracy.values())), title_justify="left")
    for name, row in accuracy.items():
        table.add_row(name, *(f"{value:.2g}" for value in row.values()))
    console.print(table)


def _number(value: float | None, scale: float) -> str:
    return "failed" if value is None else f"{value * scale:.1f}"


def _ratios(rows: dict[str, dict[str, float]], base: str, column: str) -> list[str]:
    reference = rows[base].get(column)
    return [f"{reference / row[column]:.2f}" if reference and row.get(column) else "" for row in rows.values()]


def machine(options: argparse.Namespace) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "processor": f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores",
        "threads": str(options.threads),
        "torch": torch.__version__,
        "backend": ", ".join(f"{b.name} ({b.reason})" for b in backends()),
        "commit": commit.stdout.strip() or "unknown",
    }


if __name__ == "__main__":
    main()
