"""fastnas plot."""

from __future__ import annotations

from pathlib import Path

import click

from fastnas.cli.text import next_command, results


@click.command(short_help="Draw what a run found and how it went.")
@click.argument("run", type=click.Path(path_type=Path))
def plot(run: Path) -> None:
    """Draw the run in RUN as SVG and PNG: its cells as graphs, its curves, and α over a search's epochs."""
    from fastnas.search.figures import draw_run
    from fastnas.search.lock import locked
    from fastnas.search.run import read_history

    command, history = read_history(run)
    with locked(run):
        drawn = draw_run(run, command, history)
    results(drawn)
    if command.split()[0] == "search":
        next_command("fastnas", *command.replace("search", "retrain").split(), run, "--out", f"{run}-net")
