"""The last lines of commands: what was measured, where its results lie, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import click


def size_text(counts: Mapping[str, int]) -> str:
    """How large a network is, by its `fastnas.nn.Counts`."""
    return f"{counts['parameters']:,} parameters, {counts['multiply_adds']:,} multiply-adds an image"


def results(entries: Iterable[tuple[str, Path]]) -> None:
    """Prints what was written and where."""
    for what, path in entries:
        click.echo(f"{what + ':':<14}{path}")


def next_command(*words: str | Path) -> None:
    """Prints the command to go on with."""
    click.echo(f"{'Next:':<14}{shlex.join(map(str, words))}")
