"""Bad input gets one sentence that names the thing, exit code 2, and changes nothing."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from bad_input import CASES, Case, World
from click.testing import CliRunner, Result
from runs import TINY_OPTIONS, files, image_folder

from fastnas.cli import main


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, and one line on stderr that holds `parts`."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("fastnas: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "data")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every case finds its world, under the names that the search knows."""
    root = tmp_path_factory.mktemp("searched") / "world"
    (image_folder(root / "data").with_name("data.d.toml")).mkdir()
    result = call("search", "--data", root / "data", "--out", root / "run", *TINY_OPTIONS, "--epochs=2")
    assert result.exit_code == 0, result.output
    shutil.copytree(root, root.with_name("kept"))
    return root


@pytest.fixture
def world(searched: Path) -> World:
    shutil.rmtree(searched)
    shutil.copytree(searched.with_name("kept"), searched)
    return World(searched / "data", searched / "run", searched / "out")


def content(root: Path) -> dict[Path, bytes | None]:
    """All files and folders, and what is in them; a lock holds nothing."""
    paths = (path for path in root.rglob("*") if path.name != ".lock")
    return {path: path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name[:60]!r}")
def test_a_kind_of_bad_input(world: World, case: Case) -> None:
    sentence = case.damage(world)
    before = content(world.data.parent)
    refused(call(*(word.format(**vars(world)) for word in case.command.split())), sentence)
    assert content(world.data.parent) == before


def test_every_kind_is_there() -> None:
    assert {case.kind for case in CASES} == {
        "files",
        "configuration",
        "checkpoints",
        "genotypes",
        "devices",
        "interrupted states",
    }
    assert len({(case.kind, case.name, case.command) for case in CASES}) == len(CASES) >= 40


def test_a_backend_that_cannot_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fastnas.ops.backends"], "why_not_cpu", lambda x: "the compiled part is missing")
    words = ["search", "--data", data, "--out", tmp_path / "out", "--backend=cpu"]
    refused(call(*words), "backend 'cpu' cannot run: the compiled part is missing; 'fastnas info' lists those that can")


def test_threads_may_change(world: World) -> None:
    assert call("search", "--out", world.run, "--resume", "--threads=2").exit_code == 0


def test_a_full_disk_in_the_middle_of_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, sync, syncs = tmp_path / "out", os.fsync, [0]

    def full(descriptor: int) -> None:
        syncs[0] += 1
        if syncs[0] > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    words = ["search", "--data", data, "--out", out, *TINY_OPTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = call(*words)
    assert result.exit_code == 2
    assert result.stderr == (
        f"fastnas: {out}/checkpoint.pt cannot be written (No space left on device); "
        "what was there before is unchanged; the run stops with 1 of 3 epochs saved; when that is put right go on "
        f"with: fastnas search --out {out} --resume\n"
    )
    assert len((out / "history.jsonl").read_text().splitlines()) == 1
    assert not list(out.glob("*.tmp"))
    assert call("search", "--out", out, "--resume").exit_code == 0
    assert call("search", *words[1:4], tmp_path / "whole", *TINY_OPTIONS).exit_code == 0
    assert files(out) == files(tmp_path / "whole")


def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    words = ["search", "--data", data, "--out", tmp_path / "out", *TINY_OPTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", read_only)
        refused(call(*words), f"folder {tmp_path}/out cannot be made: Read-only file system")
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("fastnas.search.files.open", read_only, raising=False)
        patch.setattr("fastnas.search.bilevel.BilevelSearch.train_epoch", lambda *_: pytest.fail("too late"))
        refused(call(*words), f"{tmp_path}/out/config.json cannot be written (Read-only file system)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(data: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    words = ["search", "--data", data, "--out", tmp_path / "locked" / "out", *TINY_OPTIONS]
    refused(call(*words), f"folder {tmp_path}/locked/out cannot be made: Permission denied")
