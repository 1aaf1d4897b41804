"""How fast a run was, and what memory it took: what no two runs have alike, in a file of its own."""

from __future__ import annotations

import json
import platform
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastnas import __version__
from fastnas.errors import UserError
from fastnas.search.files import append, write_atomically
from fastnas.search.loop import Callback
from fastnas.search.run import Row

FILE = "log.jsonl"


class Performance(Callback):
    """A callback that keeps `folder`/log.jsonl: a line for each start of the run, one for each epoch.

    A start has versions, the processor, threads, and `peak`, the most main memory that the process had until then, in
    bytes. An epoch has `seconds`, of which `busy` went forward and backward (validation is left out), the `images` that
    did, and the `peak` until its end.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._images, self._busy, self._since = 0, 0.0, 0.0

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Notes the start; epochs of an interrupted run that are gone through again are forgotten."""
        known = read_performance(self._path.parent)
        if known:
            kept = [line for line in known if line.get("epoch", 0) <= len(history)]
            write_atomically(self._path, "".join(f"{json.dumps(line)}\n" for line in kept).encode())
        self._write({"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **environment(), "peak": _peak()})
        self._begin()

    def on_step(self, images: int, figures: Mapping[str, float]) -> None:
        """Counts the images."""
        self._images += images
        self._busy = time.perf_counter() - self._since

    def on_epoch(self, row: Row) -> None:
        """Writes the epoch's line."""
        seconds = time.perf_counter() - self._since
        self._write(
            {
                "epoch": row["epoch"],
                "seconds": round(seconds, 3),
                "busy": round(self._busy, 3),
                "images": self._images,
                "peak": _peak(),
            }
        )
        self._begin()

    def _begin(self) -> None:
        self._images, self._busy, self._since = 0, 0.0, time.perf_counter()

    def _write(self, line: dict[str, Any]) -> None:
        # A line that a crash tears is left out by the reader, and costs no more than that.
        append(self._path, f"{json.dumps(line)}\n".encode())


def environment() -> dict[str, Any]:
    """Versions, the processor, and PyTorch's threads."""
    return {
        "fastnas": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }


def read_performance(folder: Path) -> list[dict[str, Any]]:
    """The lines that `Performance` wrote to their end; none where it has not.

    Raises:
        UserError: the file is damaged or cannot be read.
    """
    path = folder / FILE
    try:
        *whole, _ = path.read_text(encoding="utf-8").split("\n")
        lines = [json.loads(line) for line in whole]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: expected lines of JSON; remove it, the run does without") from error
    if not all(isinstance(line, dict) and type(line.get("epoch", 0)) is int for line in lines):
        raise UserError(f"{path} is damaged: expected objects with an epoch; remove it, the run does without")
    return lines


def seconds(lines: Iterable[Mapping[str, Any]]) -> float | None:
    """What all epochs took, of the lines of a run; None where there are none."""
    epochs = [line["seconds"] for line in lines if "epoch" in line]
    return sum(epochs) if epochs else None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # Linux counts in KiB


def _processor() -> str:
    """Its name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
