"""The share of a search's time that is not its steps: reading batches, showing and logging how it goes, checkpoints.

    python benchmarks/search_share.py cifar10     # a folder of images, as of `fastnas search --data`

One epoch of the small search of docs/repeat.md under Python's profiler, which makes these shares larger than they are.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
from pathlib import Path

import fastnas

# The whole, then its parts: in which file or folder, and which function; none of the parts calls another.
PLACES = {
    "training": ("search/loop.py", "train"),
    "reading batches": ("data/batches.py", "epoch"),
    "display of steps": ("search/loop.py", "report"),
    "display and logs of epochs": ("search/", "on_epoch"),
    "checkpoint": ("search/run.py", "save"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        search = {"channels": 8, "layers": 5, "epochs": options.epochs, "threads": 2}
        profile.runcall(fastnas.search, data=options.data, out=Path(folder) / "run", **search)
    seconds = {name: cumulative(profile, *place) for name, place in PLACES.items()}
    whole = seconds["training"]
    for name, spent in seconds.items():
        print(f"{name:<27} {spent:8.2f} s {spent / whole:7.2%}")


def cumulative(profile: cProfile.Profile, file: str, function: str) -> float:
    """Seconds inside a function, and what it calls."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = [row[3] for (path, _, name), row in stats.items() if name == function and f"fastnas/{file}" in path]
    if not found:
        raise RuntimeError(f"{file} has no function {function} that ran")
    return sum(found)


if __name__ == "__main__":
    main()
