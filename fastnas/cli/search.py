"""fastnas search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnas.cli.options import config_options, given, run_options
from fastnas.cli.text import next_command, results
from fastnas.search.config import CONFIG, SearchConfig, make_config, read_config


@click.command(short_help="Search an architecture on a set of images.")
@run_options
@config_options(SearchConfig)
@click.pass_context
def search(ctx: click.Context, /, out: Path, resume: bool, **_: Any) -> None:
    """Search an architecture for a set of images.

    First-order DARTS: half of the training images train the network's weights, the other half α, the mixture
    of candidate operations on each edge. A checkpoint is written after each epoch: Ctrl-C stops, --resume
    goes on.

    \b
      fastnas search --data digits --out runs/digits --channels 8 --layers 4 --epochs 5
      fastnas search --data photos --image-size 32 --out runs/photos
      fastnas search --out runs/photos --resume
    """
    values = given(ctx, SearchConfig)
    if resume:
        values = read_config(out / CONFIG, "search") | values
    config = make_config(SearchConfig, values)

    from fastnas.search.driver import search as run

    run(config, out, resume)
    results([("Genotype", out / "genotype.json"), ("History", out / "history.jsonl")])
    next_command("fastnas", "decode", out)
