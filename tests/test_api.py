"""Searches and trainings from Python: the same runs as on the command line, callbacks, and images of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from runs import CLASSES, TINY, TINY_OPTIONS, files
from scenes import segmentation_folder
from torch.utils.data import Dataset

import fastnas
from fastnas.cli import main
from fastnas.errors import InterruptError
from fastnas.genotype import DARTS_V2, Genotype, load, save

pytestmark = pytest.mark.usefixtures("one_thread")


class Pictures(Dataset[Any]):
    """The images of a folder, as torchvision's `ImageFolder` gives them."""

    classes = CLASSES

    def __init__(self, folder: Path) -> None:
        self.files = [(file, i) for i, name in enumerate(CLASSES) for file in sorted((folder / name).iterdir())]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.files[index]
        return Image.open(file), label


class Noted(fastnas.Callback):
    """Notes what it is told."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls: list[Any] = []
        self.stop_at = stop_at

    def on_start(self, history: Sequence[Mapping[str, Any]], steps: int) -> None:
        self.calls.append(("start", len(history), steps))

    def on_step(self, images: int, figures: Mapping[str, float]) -> None:
        assert all(isinstance(value, float) for value in figures.values())
        self.calls.append(("step", images, sorted(figures)))

    def on_epoch(self, row: Mapping[str, Any]) -> str | None:
        self.calls.append(("epoch", row["epoch"]))
        return "it is good enough" if row["epoch"] == self.stop_at else None

    def on_end(self, error: BaseException | None) -> None:
        self.calls.append(("end", error))


class OnlyTheEnd(fastnas.Callback):
    """All but one method is its base's."""

    errors: tuple[BaseException | None, ...] = ()

    def on_end(self, error: BaseException | None) -> None:
        self.errors += (error,)


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> fastnas.SearchResult:
    return fastnas.search(data, out=tmp_path_factory.mktemp("runs") / "found", progress=False, **TINY)


def test_importing_fastnas_imports_no_torch() -> None:
    code = "import sys, fastnas; dir(fastnas); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_function_keeps_its_name_whatever_is_imported() -> None:
    from fastnas.search import driver

    assert callable(fastnas.search)
    assert sys.modules["fastnas.search.driver"] is driver
    for name in fastnas.__all__:
        assert hasattr(fastnas, name)


def test_a_search_is_that_of_the_command_line(data: Path, tmp_path: Path, found: fastnas.SearchResult) -> None:
    words = ["search", "--data", str(data), "--out", str(tmp_path / "run"), *TINY_OPTIONS]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert files(found.folder) == files(tmp_path / "run")
    assert found.genotype == load(found.folder / "genotype.json")
    assert found.history == [json.loads(line) for line in (found.folder / "history.jsonl").read_text().splitlines()]
    assert found.metrics["val_accuracy"] == found.history[-1]["val_accuracy"]
    assert {name: tuple(alpha.shape) for name, alpha in found.alphas.items()} == {"normal": (14, 8), "reduce": (14, 8)}
    assert found.alphas["normal"].tolist() == torch.tensor(found.history[-1]["alpha"]["normal"]).tolist()


def test_progress_is_shown_unless_it_is_not_wanted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fastnas.search(data, out=tmp_path / "silent", progress=False, strategy="random", samples=1)
    assert capsys.readouterr().out == ""
    fastnas.search(data, out=tmp_path / "loud", **TINY | {"epochs": 1})
    assert "1/1" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["result", "folder", "file", "genotype"])
def test_a_training_takes_whatever_a_search_left(
    kind: str, data: Path, tmp_path: Path, found: fastnas.SearchResult
) -> None:
    sources: dict[str, Any] = {
        "result": found,
        "folder": str(found.folder),
        "file": found.folder / "genotype.json",
        "genotype": found.genotype,
    }
    options = {**TINY, "epochs": 1, "auxiliary": False}
    images = data if kind == "genotype" else None
    trained = fastnas.retrain(sources[kind], images, out=tmp_path / "net", progress=False, **options)
    assert trained.metrics == json.loads((tmp_path / "net" / "result.json").read_text())
    assert trained.genotype == found.genotype
    assert [row["epoch"] for row in trained.history] == [1]
    again = fastnas.retrain(out=tmp_path / "net", resume=True, progress=False)
    assert again == trained


def test_auto_deeplab_from_python(tmp_path: Path) -> None:
    scenes = segmentation_folder(tmp_path / "scenes", train=9)
    small = {"epochs": 1, "filters": 2, "crop": 9, "threads": 1, "batch_size": 2}
    found = fastnas.search(
        scenes, out=tmp_path / "run", method="auto-deeplab", progress=False, **small, steps=1, layers=2
    )
    assert {name: alpha.ndim for name, alpha in found.alphas.items()} == {"cell": 2, "beta": 3}
    trained = fastnas.retrain(found, out=tmp_path / "net", progress=False, **small)
    assert {"best_val_miou", "last_val_miou"} < trained.metrics.keys()
    with pytest.raises(fastnas.UserError, match="data is a pair of datasets; auto-deeplab takes the name"):
        fastnas.search((Dataset(), Dataset()), out=tmp_path / "pair", method="auto-deeplab")


def test_callbacks_are_told_everything_once(data: Path, tmp_path: Path, found: fastnas.SearchResult) -> None:
    noted, end = Noted(), OnlyTheEnd()
    run = fastnas.search(data, out=tmp_path / "run", progress=False, callbacks=[noted, end], **TINY)
    figures = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]
    epochs = [[("step", 8, figures), ("step", 8, figures), ("epoch", epoch)] for epoch in (1, 2, 3)]
    assert noted.calls == [("start", 0, 2), *epochs[0], *epochs[1], *epochs[2], ("end", None)]
    assert end.errors == (None,)
    assert files(run.folder) == files(found.folder)  # they change nothing


@pytest.mark.parametrize("training", [False, True])
def test_a_callback_stops_a_run_for_good(
    training: bool, data: Path, tmp_path: Path, found: fastnas.SearchResult
) -> None:
    options: dict[str, Any] = {"out": tmp_path / "run", "progress": False, **TINY}
    start: Callable[..., Any] = fastnas.search
    if training:
        options["source"], options["auxiliary"], start = found, False, fastnas.retrain
    run = start(data=data, callbacks=[Noted(stop_at=2)], **options)
    assert run.history[-1]["stopped"] == "it is good enough"
    assert len(run.history) == 2
    assert start(data=data, resume=True, **options).history == run.history


def test_a_run_that_a_callback_breaks_off_can_be_resumed(
    data: Path, tmp_path: Path, found: fastnas.SearchResult
) -> None:
    class Breaks(OnlyTheEnd):
        def on_epoch(self, row: Mapping[str, Any]) -> None:
            if row["epoch"] == 2:
                raise RuntimeError("enough")

    out, breaks, noted = tmp_path / "run", Breaks(), Noted()
    with pytest.raises(RuntimeError, match="enough"):
        fastnas.search(data, out=out, progress=False, callbacks=[breaks], **TINY)
    assert [str(error) for error in breaks.errors] == ["enough"]
    fastnas.search(out=out, resume=True, progress=False, callbacks=[noted])
    assert noted.calls[0] == ("start", 1, 2)
    assert files(out) == files(found.folder)


def test_datasets_of_pytorch_give_the_same_search_as_their_folder(
    data: Path, tmp_path: Path, found: fastnas.SearchResult
) -> None:
    pair = (Pictures(data / "train"), Pictures(data / "val"))
    run = fastnas.search(pair, out=tmp_path / "run", progress=False, **TINY)
    assert run.history == found.history
    name = json.loads((run.folder / "config.json").read_text())["config"]["data"]
    assert name.startswith("datasets:")
    trained = fastnas.retrain(run, pair, out=tmp_path / "net", progress=False, **TINY, auxiliary=False)
    assert trained.metrics["classes"] == list(CLASSES)


def test_a_run_is_resumed_with_the_same_datasets_only(data: Path, tmp_path: Path) -> None:
    pair = (Pictures(data / "train"), Pictures(data / "val"))
    with pytest.raises(InterruptError):
        fastnas.search(pair, out=tmp_path / "run", progress=False, callbacks=[_Interrupts()], **TINY)
    with pytest.raises(fastnas.UserError, match=r"--data is datasets:.* was started with datasets:"):
        fastnas.search((pair[1], pair[0]), out=tmp_path / "run", resume=True, progress=False)
    with pytest.raises(fastnas.UserError, match=r"images datasets:\w+ were given by a Python program"):
        fastnas.search(out=tmp_path / "run", resume=True, progress=False)
    assert len(fastnas.search(pair, out=tmp_path / "run", resume=True, progress=False).history) == 3


class _Interrupts(fastnas.Callback):
    def on_epoch(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt


IMAGE = np.zeros((3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "train is list; expected a dataset with a length, and images in it"),
        ([3], r"train\[0\] is int; expected a pair of an image and a label"),
        ([(IMAGE, 0), (IMAGE, "cat")], r"train\[1\] is tuple; expected a pair of an image and a label"),
        ([(IMAGE, 0.5)], r"train\[0\] has the label 0.5; expected a whole number"),
        ([(IMAGE, -1)], r"train\[0\] has the label -1; expected a whole number"),
        ([(torch.zeros(3, 8, 8), 0)], r"train\[0\] is 3×8×8 in float32; expected .* uint8: fastnas augments"),
        ([(IMAGE[0], 0)], r"train\[0\] is 8×8 in uint8; expected"),
        ([(IMAGE, 0), (IMAGE[:, 1:], 1)], r"train\[1\] is 3×7×8, train\[0\] is 3×8×8; expected one size"),
        ([(IMAGE[:, 1:], 0), (IMAGE[:, 1:], 1)], "the images of train are 3×7×8, those of val 3×8×8"),
        ([(IMAGE, 0)], "labels reach from 0 to 0, with 1 classes"),
    ],
)
def test_what_no_dataset_may_hold(items: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(fastnas.UserError, match=sentence):
        fastnas.search((items, [(IMAGE, 0)]), out=tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"chanels": 3}, r"fastnas\.search: chanels is no option; did you mean channels\?"),
        ({"channels": "3"}, r"fastnas\.search: channels is '3'; expected a valid integer"),
        ({"strategy": "random", "memory": "lean"}, r"fastnas\.search: memory is no option of --strategy random"),
        ({"method": "resnet"}, "method is 'resnet'; expected one of darts, auto-deeplab"),
        ({"preset": "none"}, "there is no preset 'none'"),
        ({"resume": True}, "holds no run of 'fastnas search'"),
    ],
)
def test_wrong_options_are_a_sentence(options: dict[str, Any], sentence: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(fastnas.UserError, match=sentence):
        fastnas.search(data, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_options_come_from_files_too(data: Path, tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("epochs: 1\nlayers: 3\nbatch-size: 4\nthreads: 1\nchannels: 4\n")
    config = tmp_path / "o.yaml"
    run = fastnas.search(
        data, out=tmp_path / "run", preset="darts-cifar10", config=config, channels=2, padding=1, progress=False
    )
    used = json.loads((run.folder / "config.json").read_text())["config"]
    assert (used["channels"], used["epochs"], used["cutout"], used["lr_min"]) == (2, 1, 0, 0.001)


def test_a_training_without_a_source(tmp_path: Path) -> None:
    save(DARTS_V2, tmp_path / "genotype.json")
    for source, sentence in ((None, "there is no .*net"), (tmp_path / "none", "there is no .*none")):
        with pytest.raises(fastnas.UserError, match=sentence):
            fastnas.retrain(source, out=tmp_path / "net")
    assert isinstance(load(tmp_path / "genotype.json"), Genotype)
