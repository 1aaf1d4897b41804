"""The checkpoint file: whole or not there, and damage is named."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from fastnas.errors import UserError
from fastnas.search.checkpoint import read_checkpoint, write_checkpoint
from fastnas.search.files import write_atomically

STATE = {"weights": torch.arange(1000.0), "epoch": 3, "history": ["{}"], "nested": {"lr": 0.1, "none": None}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, STATE)
    return path


def test_what_is_written_is_read(checkpoint: Path) -> None:
    state = read_checkpoint(checkpoint)
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert state == {name: value for name, value in STATE.items() if name != "weights"}


def test_the_first_line_describes_the_payload(checkpoint: Path) -> None:
    header = json.loads(checkpoint.read_bytes().split(b"\n")[0])
    assert (header["format"], header["version"]) == ("fastnas-checkpoint", 1)


def test_every_truncation_is_named(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for length in [0, 1, 50, *range(100, len(content), 101), len(content) - 1]:
        checkpoint.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"^{checkpoint} is (truncated|not a fastnas checkpoint)[^\n]*$"):
            read_checkpoint(checkpoint)


def test_every_flipped_bit_is_named(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    for position in [*range(150), *range(150, len(content), 97)]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        checkpoint.write_bytes(flipped)
        with pytest.raises(UserError, match=f"^{checkpoint} [^\n]*$"):
            read_checkpoint(checkpoint)


def test_another_version_is_named(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b'"version": 1', b'"version": 2', 1))
    with pytest.raises(UserError, match=r"has version 2, expected 1"):
        read_checkpoint(checkpoint)


def test_a_payload_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "attacked"),)

    monkeypatch.setattr("fastnas.search.checkpoint.to_bytes", partial(pickle.dumps, protocol=2))
    write_checkpoint(tmp_path / "checkpoint.pt", {"attack": Attack()})
    with pytest.raises(UserError, match="cannot be loaded"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError, match=f"^{path} cannot be written \\(No space left on device\\)"):
        write_atomically(path, b"new")
    assert [child.name for child in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    path = small_disk / "checkpoint.pt"
    write_checkpoint(path, STATE)
    with pytest.raises(UserError, match="No space left on device"):
        write_checkpoint(path, {"weights": torch.zeros(100_000)})
    assert [child.name for child in small_disk.iterdir()] == ["checkpoint.pt"]
    assert torch.equal(read_checkpoint(path)["weights"], STATE["weights"])
