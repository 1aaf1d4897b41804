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
@click.option(
    "--epoch",
    type=click.IntRange(min=1),
    help="Decode α as it was after this epoch; without it the last, or the one that the search kept.",
)
def decode(run: Path, epoch: int | None) -> None:
    """Print the architecture that the search in RUN found, and write it to genotype.json.

    With --epoch, to genotype-EPOCH.json: an earlier epoch can be better if skip connections took over later.
    """
    from fastnas.genotype import Genotype, dumps
    from fastnas.search.alphas import decode_row, kept_row
    from fastnas.search.files import write_atomically
    from fastnas.search.lock import locked
    from fastnas.search.run import read_history

    command, history = read_history(run)
    if command.split()[0] != "search":
        raise UserError(f"{run} holds a run of 'fastnas {command}', expected one of 'fastnas search'")
    if epoch is not None and epoch > len(history):
        raise UserError(f"--epoch is {epoch}, but {run} has {len(history)} epochs")
    genotype = decode_row(kept_row(history) if epoch is None else history[epoch - 1])
    path = run / ("genotype.json" if epoch is None else f"genotype-{epoch}.json")
    with locked(run):
        write_atomically(path, dumps(genotype).encode())
    if isinstance(genotype, Genotype):
        click.echo(_text("normal cell", genotype.normal))
        click.echo(_text("reduction cell", genotype.reduce))
    else:
        click.echo(_text("cell", genotype.cell))
        click.echo("path, in scales\n  " + " ".join(str(4 << level) for level in genotype.path))
    results([("Genotype", path)])
    next_command(
        "fastnas", *command.replace("search", "retrain").split(), run if epoch is None else path, "--out", f"{run}-net"
    )


def _text(title: str, cell: CellGenotype) -> str:
    from fastnas.genotype.text import cell_text

    return "\n".join([title, *(f"  {line}" for line in cell_text(cell))])
