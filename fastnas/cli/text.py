"""The last lines of every command: where its results lie, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import click


def results(entries: Iterable[tuple[str, Path]]) -> None:
    """Prints what was written and where."""
    for what, path in entries:
        click.echo(f"{what + ':':<14}{path}")


def next_command(*words: str | Path) -> None:
    """Prints the command to go on with."""
    click.echo(f"{'Next:':<14}{shlex.join(map(str, words))}")
