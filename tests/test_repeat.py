"""Several seeds by one command: the runs are those of the separate commands, and an interruption changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from runs import TINY, TINY_OPTIONS, files
from scenes import segmentation_folder

import fastnas
from fastnas.cli import main
from fastnas.data import load_data
from fastnas.errors import InterruptError, UserError
from fastnas.search.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = (4, 1)
SEARCH, TRAINING = [*TINY_OPTIONS, "--epochs=2"], [*TINY_OPTIONS, "--epochs=2", "--no-auxiliary"]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def words(data: Path, out: Path) -> list[str | Path]:
    return ["repeat", "--seeds=4,1", "--out", out, "search", "--data", data, *SEARCH, "retrain", *TRAINING]


def content(out: Path) -> dict[str, Any]:
    """The files of all runs, and the study's own."""
    folders = [out, *(out / f"seed-{seed}" / part for seed in SEEDS for part in ("search", "network"))]
    return {str(folder.relative_to(out)): files(folder) for folder in folders}


def written(out: Path) -> dict[Path, bytes]:
    """Every file as it is."""
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def study(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, without an interruption."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("studies") / "study"
    result = call(*words(data, out))
    assert result.exit_code == 0, result.output
    (out / "output.txt").write_text(result.stdout)
    shutil.move(out / "output.txt", out.with_name("output.txt"))
    return out


def test_a_run_after_others_is_that_of_the_separate_commands(study: Path, data: Path, tmp_path: Path) -> None:
    seed, searched, trained = SEEDS[1], tmp_path / "search", tmp_path / "net"
    assert call("search", "--data", data, "--out", searched, *SEARCH, f"--seed={seed}").exit_code == 0
    assert call("retrain", searched, "--out", trained, *TRAINING, f"--seed={seed}").exit_code == 0
    assert files(study / f"seed-{seed}" / "search") == files(searched)
    assert files(study / f"seed-{seed}" / "network") == files(trained)


def test_the_result_has_mean_and_sample_deviation(study: Path) -> None:
    result = json.loads((study / "result.json").read_text())
    single = [json.loads((study / f"seed-{seed}/network/result.json").read_text()) for seed in SEEDS]
    assert [row["seed"] for row in result["runs"]] == list(SEEDS)
    for name in ("last_val_accuracy", "best_val_accuracy", "parameters", "multiply_adds"):
        values = [run[name] for run in single]
        assert [row[name] for row in result["runs"]] == values
        assert result["mean"][name] == pytest.approx(mean(values))
        assert result["deviation"][name] == pytest.approx(stdev(values))


def test_the_table_has_a_row_a_seed(study: Path) -> None:
    result, output = json.loads((study / "result.json").read_text()), study.with_name("output.txt").read_text()
    rows = {cells[0]: cells[1:] for line in output.splitlines() if len(cells := re.findall(r"[\w.%,:-]+", line)) > 3}
    for row in result["runs"]:
        accuracies = [f"{row[name]:.2%}" for name in ("last_val_accuracy", "best_val_accuracy")]
        assert rows[str(row["seed"])][:3] == [*accuracies, f"{row['parameters']:,}"]
        assert all(re.fullmatch(r"0:00:\d\d", time) for time in rows[str(row["seed"])][3:5])
    for name in ("mean", "deviation"):
        figures = result[name]
        assert rows[name][:2] == [f"{figures[key]:.2%}" for key in ("last_val_accuracy", "best_val_accuracy")]


def test_interruptions_change_nothing(study: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, save = tmp_path / "study", Run.save
    reads: list[Any] = []
    stops = [("search", 4, 2), ("retrain", 1, 1)]

    def stopped(self: Run, task: Any, history: list[Any]) -> None:
        if (self.command, self.config.seed, len(history)) == stops[0]:
            raise KeyboardInterrupt
        save(self, task, history)

    def load(*args: Any) -> Any:
        reads.append(args)
        if len(reads) == 2:
            raise KeyboardInterrupt
        return load_data(*args)

    def interrupted(*command: str | Path) -> str:
        result = call(*command)
        assert result.exit_code == InterruptError.exit_code
        assert not (out / "result.json").exists()
        return result.stderr

    follow = f"fastnas repeat --out {out} --resume\n"
    monkeypatch.setattr(Run, "save", stopped)
    assert interrupted(*words(data, out)).endswith(f"; then, with all that is left: {follow}")
    stops.pop(0)
    with monkeypatch.context() as patch:  # between two runs
        patch.setattr("fastnas.search.driver.load_data", load)
        assert interrupted("repeat", "--out", out, "--resume") == f"fastnas: interrupted; go on with: {follow}"
    assert interrupted(*words(data, out), "--resume").endswith(follow)  # the same command once more
    monkeypatch.undo()
    assert call("repeat", "--out", out, "--resume").exit_code == 0
    assert content(out) == content(study)


def test_more_seeds_of_random_search(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "random"
    search: list[str | Path] = ["search", "--data", data, "--strategy=random"]
    result = call("repeat", "--seeds=1", "--out", out, *search, "retrain", *TRAINING, "--epochs=1")
    assert result.exit_code == 0, result.output
    assert re.search(r"deviation\W+-\W+-\W+-", result.output)
    one = json.loads((out / "result.json").read_text())
    assert set(one["deviation"].values()) == {None}
    assert json.loads((out / "seed-0/search/config.json").read_text())["config"]["strategy"] == "random"
    assert call("repeat", "--out", out, "--resume", "--seeds=2").exit_code == 0
    two = json.loads((out / "result.json").read_text())
    assert [row["seed"] for row in two["runs"]] == [0, 1]
    assert two["runs"][0] == one["runs"][0]


def test_from_python(data: Path, tmp_path: Path) -> None:
    found = fastnas.repeat(
        out=tmp_path / "study",
        seeds=(4, 1),
        search={"data": data, "strategy": "random"},
        retrain={**TINY, "epochs": 1, "auxiliary": False},
        progress=False,
    )
    result = json.loads((found.folder / "result.json").read_text())
    assert {"runs": found.runs, "mean": found.mean, "deviation": found.deviation} == result
    assert [row["seed"] for row in found.runs] == [4, 1]
    assert all(time is not None and 0 < time < 60 for _, time in found.seconds)


def test_auto_deeplab(tmp_path: Path) -> None:
    scenes = segmentation_folder(tmp_path / "scenes", train=9)
    small = {"epochs": 1, "filters": 2, "crop": 9, "threads": 1, "batch_size": 2}
    found = fastnas.repeat(
        out=tmp_path / "study",
        seeds=2,
        method="auto-deeplab",
        search={"data": scenes, **small, "steps": 1, "layers": 2},
        retrain=small,
        progress=False,
    )
    assert found.mean["last_val_miou"] == mean(row["last_val_miou"] for row in found.runs)
    assert call("repeat", "auto-deeplab", "--out", found.folder, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("--seeds=0 --out {out} search --data digits", "--seeds is 0; expected at least one seed"),
        ("--seeds=2,5,2 --out {out} search --data digits", "--seeds has 2 twice; expected every seed once"),
        ("--seeds=two --out {out} search --data digits", "--seeds is 'two'; expected how many, or which, with commas"),
        ("--seeds=1,-1 --out {out} search --data digits", "--seed is -1; expected a number greater than or equal to 0"),
        ("--out {out}", "--data is missing"),
        ("search --data digits", "--out is missing; it names the folder for the results"),
        ("--out {study} search --data digits", "{study} is not empty; choose another --out, or go on with it by"),
        ("--out {file} search --data digits", "{file} is a file; --out takes a folder"),
        ("--out {out} --resume", "{out} holds no run of 'fastnas repeat': config.json is missing"),
        ("auto-deeplab --out {study} --resume", "{study} holds a run of 'fastnas repeat', expected one of 'fastnas re"),
        ("--out {study} --resume search --epochs=5", "--epochs is 5, but {study} was started with 2"),
        ("--out {study} --resume retrain --channels=5", "--channels is 5, but {study} was started with 2"),
        ("--out {study} --resume search --strategy=random", "--strategy is random, but {study} was started with darts"),
        ("--out {out} search --data digits search --epochs=3", "found the options of search, search; expected"),
        ("--out {out} search --data digits --seed=3", "No such option '--seed'"),
        ("--out {out} search --data digits retrain --preset=darts-cifar10", "is for 'fastnas search', not 'fastnas re"),
        ("--out {out} search --data digits --strategy=random --memory=lean", "--memory is no option of --strategy ran"),
    ],
)
def test_bad_input_is_a_sentence(command: str, sentence: str, study: Path, tmp_path: Path) -> None:
    places = {"study": study, "out": tmp_path / "out", "file": tmp_path / "file"}
    places["file"].write_text("")
    before = written(study)
    result = call("repeat", *command.format(**places).split())
    assert (result.exit_code, result.stdout) == (UserError.exit_code, "")
    assert sentence.format(**places) in result.stderr
    assert result.stderr.count("\n") == 1
    assert written(study) == before
    assert not places["out"].exists()


def test_a_damaged_configuration(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    shutil.copytree(study, out)
    (out / "config.json").write_text('{"command": "repeat", "config": {"seeds": "many"}}')
    assert (
        f"{out}/config.json is damaged: expected what 'fastnas repeat' wrote"
        in call("repeat", "--out", out, "--resume").stderr
    )


def test_a_seed_among_the_options(tmp_path: Path) -> None:
    with pytest.raises(fastnas.UserError, match="retrain has a seed; expected seeds beside it"):
        fastnas.repeat(out=tmp_path / "out", search={"data": "digits"}, retrain={"seed": 1})


def test_a_pair_of_datasets(tmp_path: Path) -> None:
    with pytest.raises(fastnas.UserError, match="data of search is a pair of datasets; expected a folder or a name"):
        fastnas.repeat(out=tmp_path / "out", search={"data": ([], [])})
