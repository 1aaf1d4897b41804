"""Damaged and malicious files are read or refused with a sentence; `python tests/fuzz_files.py` reads thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_files import READERS, Attack, fuzz, watched


@pytest.mark.parametrize("kind", READERS)
def test_a_hundred_files(kind: str, tmp_path: Path) -> None:
    outcome = fuzz(kind, tmp_path, 100, seed=1)
    assert outcome.total() == 100
    assert outcome["refused"] >= 50


def test_the_watch_sees_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, arguments = Attack().__reduce__()
    with pytest.raises(AssertionError, match=r"reading it did .*os\.system.*touch attacked"), watched():
        command(*arguments)
    with pytest.raises(AssertionError, match=r"reading it did .*open"), watched():
        (tmp_path / "file").write_text("written")
