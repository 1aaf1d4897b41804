"""What a run has saved survives SIGKILL, damage, a full disk, a lost folder and a second process."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from killing import CONTEXT, ended, make_images, retrain, search, start
from runs import TINY_OPTIONS, files

from fastnas.cli import main
from fastnas.search.bilevel import BilevelSearch
from fastnas.search.lock import locked

pytestmark = pytest.mark.usefixtures("one_thread")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make_images(root)
    return root


@pytest.fixture(scope="module")
def whole(root: Path) -> Path:
    """A search of four epochs."""
    assert ended(start(search, root, root / "whole"))
    return root / "whole"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The same, for a test to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_search_killed_at_every_rename_ends_with_the_same_bits(root: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    deaths = [
        ("config.json", 1),  # of a run that has nothing yet
        ("checkpoint.pt", 1),
        ("history.jsonl", 1),  # after the first checkpoint
        ("config.json", 1),  # of one that is resumed
        ("history.jsonl", 1),  # as the checkpoint has it
        ("log.jsonl", 1),
        ("checkpoint-previous.pt", 1),
        ("checkpoint.pt", 1),  # while the one before has its other name
        ("history.jsonl", 2),
        ("genotype.json", 1),  # after the last epoch
    ]
    for file, call in deaths:
        assert not ended(start(search, root, out, ("replace", f"/{file}", call)))
        if (out / "checkpoint-previous.pt").exists():
            assert (out / "checkpoint.pt").exists() is (file != "checkpoint.pt")
    written = {path.name for path in whole.rglob("*") if path.is_file() and path.parent.name != "tensorboard"}
    assert {file for file, _ in deaths} == written - {".lock"}
    assert not ended(start(search, root, out, ("fsync", "", 3)))
    assert list(out.glob("*.tmp"))
    assert ended(start(search, root, out))
    assert files(out) == files(whole)


def test_a_training_killed_around_its_best_weights_ends_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for file in ("checkpoint.pt", "best.pt"):
        assert not ended(start(retrain, root, out, ("replace", f"/{file}", 1)))
    for folder in (out, tmp_path / "whole"):
        assert ended(start(retrain, root, folder))
    assert files(out) == files(tmp_path / "whole")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty], ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    root: Path, whole: Path, run: Path, damage: Callable[[Path], None]
) -> None:
    damage(run / "checkpoint.pt")
    result = call("decode", run, "--epoch=4")
    assert result.exit_code == 2
    warning, error = result.stderr.splitlines()
    assert warning.startswith(f"fastnas: {run}/checkpoint.pt is ")
    assert warning.endswith(f"; {run}/checkpoint-previous.pt, the one before it, is used")
    assert error == f"fastnas: --epoch is 4, but {run} has 3 epochs"
    result = call("search", "--out", run, "--resume")
    assert result.exit_code == 0
    assert result.stderr.count("checkpoint-previous.pt, the one before it, is used\n") == 1
    assert "3 of 4 epochs are done already." in result.stdout
    assert files(run) == files(whole)


def test_history_ends_where_the_checkpoint_before_the_damaged_one_does(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(run / "checkpoint.pt")
    before = (run / "checkpoint-previous.pt").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BilevelSearch, "train_epoch", interrupted)
    assert call("search", "--out", run, "--resume").exit_code == 130
    assert [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert (run / "checkpoint-previous.pt").read_bytes() == before


def test_two_damaged_checkpoints(run: Path) -> None:
    flip(run / "checkpoint.pt")
    cut(run / "checkpoint-previous.pt")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = call("search", "--out", run, "--resume")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert f"{run}/checkpoint.pt is damaged" in result.stderr
    assert f"and {run}/checkpoint-previous.pt is truncated" in result.stderr
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def hold(folder: Path, held: Any) -> None:
    with locked(folder):
        held.set()
        time.sleep(600)


@pytest.fixture
def other_process(run: Path) -> Iterator[Callable[[], None]]:
    """Another process is at work in `run`; calling this kills it."""
    held = CONTEXT.Event()
    process = CONTEXT.Process(target=hold, args=(run, held))
    process.start()
    assert held.wait(60)

    def kill() -> None:
        process.kill()
        process.join()

    yield kill
    kill()


def test_a_second_process_refuses_and_a_killed_one_leaves_no_lock(run: Path, other_process: Callable[[], None]) -> None:
    before = files(run)
    for words in (["search", "--resume", "--out"], ["decode"], ["plot"]):
        result = call(*words, run)
        assert result.exit_code == 2, words
        assert result.stderr == f"fastnas: {run} is in use by another fastnas process; wait until it ends\n"
    assert files(run) == before
    other_process()
    assert call("search", "--resume", "--out", run).exit_code == 0
    assert files(run) == before


def test_two_processes_that_start_one_run_at_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has begun while this one still read its images."""
    from fastnas.search import driver

    out, load = tmp_path / "out", driver.load_data

    def slow(*options: Any) -> Any:
        out.mkdir()
        (out / "config.json").write_text("of the other")
        return load(*options)

    monkeypatch.setattr(driver, "load_data", slow)
    result = call("search", "--data", root / "images", "--out", out, *TINY_OPTIONS)
    assert result.exit_code == 2
    assert f"{out} holds a run already" in result.stderr
    assert (out / "config.json").read_text() == "of the other"


def at_second_epoch(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None]) -> None:
    train_epoch = BilevelSearch.train_epoch

    def trained(self: BilevelSearch, epoch: int, *args: Any) -> Any:
        if epoch == 1:
            happen()
        return train_epoch(self, epoch, *args)

    monkeypatch.setattr(BilevelSearch, "train_epoch", trained)


@pytest.mark.parametrize("first", ["tensorboard", "performance", "checkpoint.pt"])
def test_a_folder_that_is_removed_while_it_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    out = tmp_path / "run"
    if first != "tensorboard":
        monkeypatch.setattr("fastnas.search.tensorboard.find_spec", lambda name: None)
    if first == "checkpoint.pt":
        monkeypatch.setattr("fastnas.search.performance.Performance.on_epoch", lambda *_: None)
    at_second_epoch(monkeypatch, lambda: shutil.rmtree(out))
    result = call("search", "--data", root / "images", "--out", out, *TINY_OPTIONS)
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"fastnas: {out}/{first} cannot be written: its folder is gone; the run stops with 1 of 3 epochs saved"
    )
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_a_limit_on_the_size_of_files(root: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own error, in the middle of a file."""
    out, limit = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (whole / "checkpoint.pt").stat().st_size // 2
    at_second_epoch(monkeypatch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1])))
    words = ["search", "--data", root / "images", "--out", out, *TINY_OPTIONS, "--epochs=4"]
    try:
        result = call(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert result.exit_code == 2
    assert (
        f"{out}/checkpoint.pt cannot be written (File too large); what was there before is unchanged" in result.stderr
    )
    assert not list(out.glob("*.tmp"))
    monkeypatch.undo()
    assert call("search", "--out", out, "--resume").exit_code == 0
    assert files(out) == files(whole)


def test_tensorboard_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the package tensorboard")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("")
    result = call("search", "--data", root / "images", "--out", tmp_path / "run", *TINY_OPTIONS)
    assert result.exit_code == 2
    assert f"{tmp_path}/run/tensorboard cannot be written (File exists); the run stops with 0 of 3" in result.stderr
