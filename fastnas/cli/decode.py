"""fastnas decode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastnas.cli.text import next_command, results
from fastnas.errors import UserError

if TYPE_CHECKING:
    from fastnas.genotype import CellGenotype


@click.command(short_help="Print the architecture that a search found.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--epoch", type=click.IntRange(min=1), help="Decode α as it was after this epoch; without it the last.")
def decode(run: Path, epoch: int | None) -> None:
    """Print the architecture that the search in RUN found, and write it to genotype.json.

    With --epoch, to genotype-EPOCH.json: an earlier epoch can be better if skip connections took over later.
    """
    from fastnas.genotype import dumps
    from fastnas.search.alphas import decode as decode_alpha
    from fastnas.search.files import write_atomically
    from fastnas.search.run import read_history

    command, history = read_history(run)
    if command != "search":
        raise UserError(f"{run} holds a run of 'fastnas {command}', expected one of 'fastnas search'")
    if epoch is not None and epoch > len(history):
        raise UserError(f"--epoch is {epoch}, but {run} has {len(history)} epochs")
    genotype = decode_alpha(history[(epoch or 0) - 1]["alpha"])
    path = run / ("genotype.json" if epoch is None else f"genotype-{epoch}.json")
    write_atomically(path, dumps(genotype).encode())
    click.echo(_text("normal cell", genotype.normal))
    click.echo(_text("reduction cell", genotype.reduce))
    results([("Genotype", path)])
    next_command("fastnas", "retrain", run if epoch is None else path, "--out", f"{run}-net")


def _text(title: str, cell: CellGenotype) -> str:
    """One line a node: the operations it sums, and what each reads."""
    states = [
        "the cell before the previous",
        "the previous cell",
        *(f"node {i}" for i in range(len(cell.nodes))),
    ]
    lines = [
        f"  node {i} = " + " + ".join(f"{operation}({states[source]})" for operation, source in node)
        for i, node in enumerate(cell.nodes)
    ]
    return "\n".join([title, *lines])
