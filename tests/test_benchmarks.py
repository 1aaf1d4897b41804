"""The benchmarks run from end to end, on tiny sizes. What they say about speed is never looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, path: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """What `script --quick` prints, and its JSON."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", str(path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_sweep_measures_every_shape_it_can(tmp_path: Path) -> None:
    output, document = run("sweep.py", tmp_path / "sweep.json")
    rows = {(row["batch"], row["size"], row["stride"]): row for row in document["rows"]}
    # One value a channel cannot be normalised.
    assert set(rows) == {(n, size, stride) for n in (1, 2) for size in (1, 7, 8) for stride in (1, 2)} - {
        (1, 1, 1),
        (1, 1, 2),
    }
    for (_, size, stride), row in rows.items():
        assert row["medians"]["fastnas fast"] > 0
        odd = stride == 2 and size % 2 == 1
        assert (row["medians"]["stock"] == "even sizes only") == odd
        assert (row["ratio"] is None) == odd
    assert "10 shapes, 7 compared with the faster stock layout, " in output


@pytest.mark.parametrize("words", [["--channels", "3"], ["--json", "/nowhere/file.json"], ["--sizes", "0"]])
def test_sweep_refuses_what_it_cannot_measure(words: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / "sweep.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"sweep.py: error: {'argument ' if '0' in words else ''}{words[0]}" in done.stderr
