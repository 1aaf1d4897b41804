"""The whole search network by batch size: time and peak memory, each network in a process of its own, with a picture.

    python benchmarks/batches.py --picture batches --json batches.json     # batch 8 … 256; writes batches.svg and .png
    python benchmarks/batches.py --batch 8 32 --channels 16 --layers 8

docs/benchmarks.md says how to read it.
"""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

import torch
from contestants import FAST, LEAN, STOCK, STOCK_CHECKPOINTED, STOCK_LAST, Setting, make
from isolated import OUT_OF_MEMORY, isolated
from machine import machine
from memory import memory
from report import batches_table
from rich.console import Console
from step import positive, save
from timing import interleaved

NAMES = (STOCK, STOCK_LAST, STOCK_CHECKPOINTED, FAST, LEAN)
BATCHES = [8, 16, 32, 64, 128, 256]
WARM_UP = 1
QUICK = {"batch": [2, 4], "channels": 4, "layers": 3, "size": 8, "rounds": 1, "threads": 1}


def main() -> None:
    options = parse()
    limit = int(options.limit * 2**30)
    document = {"machine": machine(options.threads), "limit": limit, "results": {name: {} for name in NAMES}}
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    for key, value in document["machine"].items():
        console.print(f"{key}: {value}", markup=False)
    results: dict[str, dict[int, dict[str, object] | str]] = document["results"]
    for batch in sorted(options.batch):
        setting = Setting(options.channels, options.layers, options.size, batch)
        for name in NAMES:
            smaller = next(reversed(results[name].values()), None)
            # What does not fit will not fit twice.
            if isinstance(smaller, str) and smaller.startswith(OUT_OF_MEMORY):
                results[name][batch] = smaller
            else:
                results[name][batch] = isolated(measure, name, setting, options.rounds, options.threads, limit)
            save(document, options.json)
        console.print(batches_table({name: results[name][batch] for name in NAMES}, setting))
    if options.picture and all(isinstance(found, str) for by_batch in results.values() for found in by_batch.values()):
        console.print("no picture: nothing could be measured")
    elif options.picture:
        from picture import draw  # not by the processes that measure, which import this module too

        threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
        title = f"C={options.channels}, L={options.layers}, {options.size}x{options.size}, {threads}"
        for path in draw(results, title, limit, options.picture):
            console.print(f"picture: {path}", soft_wrap=True)


def measure(name: str, setting: Setting, rounds: int, threads: int, limit: int) -> dict[str, object]:
    """Peak bytes of a step and the seconds of `rounds` more.

    Allocations beyond `limit` bytes fail, so that the system does not have to end a process to get memory back.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(threads)
    found = memory(name, setting, threads)
    seconds = interleaved({name: make(name, setting).forward_backward}, rounds, WARM_UP)[name]
    if isinstance(seconds, str):
        raise MemoryError if seconds == OUT_OF_MEMORY else RuntimeError(seconds)
    return {**found, "seconds": seconds}


def available() -> float:
    """GiB that the system could hand out now; all it has where it does not say."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (pages if kilobytes is None else kilobytes * 1024) / 2**30


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=positive, nargs="+", default=BATCHES)
    parser.add_argument("--channels", type=positive, default=16)
    parser.add_argument("--layers", type=positive, default=8)
    parser.add_argument("--size", type=positive, default=32, help="height and width of the images")
    parser.add_argument("--rounds", type=positive, default=3, help="that count, after one to warm up")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=0.95 * available(), help="GiB a process may use (default: free)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw FILE.svg and FILE.png")
    parser.add_argument("--quick", action="store_true", help="a tiny network, one round: shows that everything runs")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    options = parser.parse_args()
    for flag, path in (("--json", options.json), ("--picture", options.picture)):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{flag}: there is no folder {path.parent}")
    return options


if __name__ == "__main__":
    main()
