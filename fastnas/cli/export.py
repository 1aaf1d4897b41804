"""fastnas export."""

from __future__ import annotations

from pathlib import Path

import click

from fastnas.cli.text import results


@click.command(short_help="Write a trained network as a file that needs no fastnas.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.onnx, or FILE.py for a module of plain PyTorch, with its weights beside it in FILE.weights.pt.",
)
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which to export."
)
@click.option(
    "--size",
    type=(click.IntRange(min=1), click.IntRange(min=1)),
    metavar="HEIGHT WIDTH",
    help="Of the images that the ONNX file takes; without it that of those trained on, or of the largest "
    "validation image with labelled pixels.",
)
def export(run: Path, out: Path, weights: str, size: tuple[int, int] | None) -> None:
    """Write the network trained in RUN, of either method, as a file that needs no fastnas.

    \b
      fastnas export runs/digits-net --out digits.onnx
      fastnas export runs/digits-net --out digits.py
    """
    from fastnas.export import export as write

    results(("Exported", path) for path in write(run, out, weights, size))
