"""The benchmarks run from end to end, on tiny sizes. What they say about speed is never looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from batches import measure
from contestants import FAST, LEAN, STOCK, Setting
from isolated import OUT_OF_MEMORY, isolated
from picture import draw
from PIL import Image

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
    # One value a channel, of an image of one pixel, cannot be normalised.
    assert set(rows) == {(1, size, stride) for size in (7, 8) for stride in (1, 2)}
    for (_, size, stride), row in rows.items():
        assert row["medians"]["fastnas fast"] > 0
        odd = stride == 2 and size % 2 == 1
        assert (row["medians"]["stock"] == "even sizes only") == odd
        assert (row["ratio"] is None) == odd
    assert "4 shapes, 3 compared with the faster stock layout, " in output


@pytest.mark.parametrize("words", [["--channels", "3"], ["--json", "/nowhere/file.json"], ["--sizes", "0"]])
def test_sweep_refuses_what_it_cannot_measure(words: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / "sweep.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"sweep.py: error: {'argument ' if '0' in words else ''}{words[0]}" in done.stderr


def test_batches_measures_every_network_and_draws(tmp_path: Path) -> None:
    output, document = run(
        "batches.py", tmp_path / "batches.json", "--batch", "2", "--picture", str(tmp_path / "batches")
    )
    assert list(document["results"]) == ["stock", "stock channels_last", "stock checkpointed", FAST, LEAN]
    for found in document["results"].values():
        assert list(found) == ["2"]
        for figures in found.values():
            assert len(figures["seconds"]) == 1
            assert figures["peak"] > 0
    assert f"picture: {tmp_path / 'batches.svg'}" in output
    assert "</svg>" in (tmp_path / "batches.svg").read_text()
    with Image.open(tmp_path / "batches.png") as image:
        assert image.width > 1000


def test_a_batch_beyond_the_limit_is_out_of_memory() -> None:
    setting = Setting(channels=4, layers=3, size=32, batch=4096)
    assert isolated(measure, STOCK, setting, 1, 1, 2**30) == OUT_OF_MEMORY


def test_the_picture_marks_what_is_out_of_memory(tmp_path: Path) -> None:
    found = {"seconds": [0.1], "peak": 1e6}
    results = {STOCK: {8: found, 16: OUT_OF_MEMORY}, FAST: {8: found, 16: found}, LEAN: {8: OUT_OF_MEMORY}}
    svg, png = draw(results, "title", 2**30, tmp_path / "picture")
    assert (svg, png) == (tmp_path / "picture.svg", tmp_path / "picture.png")
    assert svg.read_text().count("<!-- out of memory -->") == 1
    assert png.stat().st_size > 0
