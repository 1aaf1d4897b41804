"""The benchmarks run from end to end, on tiny sizes. What they say about speed is never looked at."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import camvid
import pytest
import training
from batches import measure
from contestants import FAST, LEAN, STOCK, Setting
from isolated import OUT_OF_MEMORY, isolated
from picture import draw
from PIL import Image
from scenes import camvid_folder

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


def test_training_tells_how_far_a_layout_and_the_operator_lead() -> None:
    options = argparse.Namespace(seeds=1, steps=2, batch=2, size=8, threads=1, limit=120)
    found = training.measure("DARTS, small", "float64", options)
    assert list(found) == ["stock channels_last", "fast", "lean"]
    for differences in found.values():
        assert isinstance(differences, dict), differences
        assert list(differences) == ["loss", "alpha"]
        assert all(len(values) == 1 and values[0] < 1e-9 for values in differences.values())


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


@pytest.mark.usefixtures("one_thread")
def test_camvid_compares_three_kinds_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"scale": 1.0, "crop": 17, "batch_size": 2}
    monkeypatch.setattr(camvid, "LAYERS", 3)
    monkeypatch.setattr(camvid, "SEARCH", camvid.SEARCH | small | {"filters": 2, "layers": 3, "steps": 2})
    monkeypatch.setattr(camvid, "TRAINING", camvid.TRAINING | small | {"filters": 1})
    epochs = ["--search-epochs", "2", "--epochs", "1", "--threads", "1"]
    command = ["camvid.py", str(camvid_folder(tmp_path / "data", 4)), str(tmp_path / "out"), *epochs]

    def results(*words: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", [*command, *words])
        camvid.main()
        return {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")}

    part = results("--kinds", "random", "--seeds", "1")
    assert list(part) == ["random-1"]
    found = results("--seeds", "0", "1")
    assert set(found) == {f"{kind}-{seed}" for kind in camvid.KINDS for seed in (0, 1)}
    assert found["random-1"] == part["random-1"]
    assert found["random-0"]["parameters"] != found["random-1"]["parameters"]
    plain, searched = found["encoder-decoder-0"]["parameters"], found["searched-0"]["parameters"]
    assert abs(plain - searched) < 0.05 * searched
    capsys.readouterr()
    assert results("--seeds", "0", "1") == found
    assert f"{searched:,}" in capsys.readouterr().out
