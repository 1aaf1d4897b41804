"""The examples run as their first lines say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import submitit
from PIL import Image
from scenes import segmentation_folder

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.usefixtures("one_thread")
def test_segmentation_leads_from_a_folder_to_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = segmentation_folder(tmp_path / "photos"), tmp_path / "run"
    sizes = ["--scale", "1", "--crop", "17", "--filters", "2", "--search-epochs", "2", "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["segmentation.py", str(root), str(out), *sizes])
    runpy.run_path(str(EXAMPLES / "segmentation.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "search, epoch 2: loss " in printed
    assert {path.name for path in out.iterdir()} == {
        *(f"found-{part}.{kind}" for part in ("cell", "network") for kind in ("svg", "png")),
        "network",
    }
    pictures = sorted((out / "network").glob("prediction-*.png"))
    assert [str(path) for path in pictures] == printed.split("pictures:")[1].split()
    assert len(pictures) == 3
    for path in pictures:
        assert Image.open(path).width >= 320


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("kind", "workers"), [("debug", 1), pytest.param("local", 2, marks=pytest.mark.thorough)])
def test_a_sweep_is_not_repeated(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    workers: int,
) -> None:
    """With jobs in this process, or as two processes at a time."""
    make, out = submitit.AutoExecutor, tmp_path / "sweep"
    sizes = [f"--workers={workers}", "--epochs=1", "--channels=2", "--layers=3", "--batch-size=4", "--alpha-lrs=0.1"]
    monkeypatch.setattr(submitit, "AutoExecutor", lambda folder, cluster: make(folder, cluster=kind))
    monkeypatch.setattr("sys.argv", ["sweep.py", str(data), str(out), *sizes])
    seen = []
    for _ in range(2):
        runpy.run_path(str(EXAMPLES / "sweep.py"), run_name="__main__")
        saved = [(out / f"seed{seed}-alpha-lr0.1" / "checkpoint.pt").stat().st_mtime_ns for seed in (0, 1)]
        seen.append((capsys.readouterr().out, saved))
    assert seen[0] == seen[1]
    assert seen[0][0].count("accuracy") == 2
