"""fastnas search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnas.cli.methods import Methods
from fastnas.cli.options import config_options, given, run_options
from fastnas.cli.strategies import strategy_config, strategy_options
from fastnas.cli.text import next_command, results
from fastnas.search.options import trellis_search_config
from fastnas.search.segmentation_config import TrellisSearchConfig


@click.group(cls=Methods, short_help="Search an architecture on a set of images.")
def search() -> None:
    """Search an architecture. METHOD is what to search: a classifier by DARTS, or a segmentation network.

    \b
      fastnas search --data digits --out runs/digits --channels 8 --layers 4 --epochs 5
      fastnas search auto-deeplab --data camvid:photos/camvid --out runs/camvid
    """


@search.command(short_help="A classifier of images (the default).")
@run_options
@strategy_options
@click.pass_context
def darts(ctx: click.Context, /, out: Path, resume: bool, **_: Any) -> None:
    """Search an architecture for a set of images with classes.

    Without --strategy by first-order DARTS: half of the training images train the network's weights, the other
    half α, the mixture of candidate operations on each edge. A checkpoint is written after each epoch: Ctrl-C
    stops, --resume goes on.

    \b
      fastnas search --data digits --out runs/digits --channels 8 --layers 4 --epochs 5
      fastnas search --data photos --image-size 32 --out runs/photos
      fastnas search --out runs/photos --resume
    """
    config = strategy_config(ctx, out, resume)

    from fastnas.search.driver import search as run

    run(config, out, resume)
    _say_what_follows(out)


@search.command(short_help="A network for semantic segmentation, cell and path through scales.")
@run_options
@config_options(TrellisSearchConfig)
@click.pass_context
def auto_deeplab(ctx: click.Context, /, out: Path, resume: bool, **_: Any) -> None:
    """Search a network for semantic segmentation: the cell, and the path through a trellis of scales.

    Auto-DeepLab: half of the training images train the weights, the other half, from --arch-start on, alpha and
    beta. A checkpoint is written after each epoch: Ctrl-C stops, --resume goes on.

    \b
      fastnas search auto-deeplab --data camvid:photos/camvid --scale 0.5 --crop 129 --out runs/camvid
      fastnas search auto-deeplab --out runs/camvid --resume
    """
    options = given(ctx, TrellisSearchConfig.model_fields, "search auto-deeplab")
    config = trellis_search_config(options, out, resume)

    from fastnas.search.segmentation_driver import search as run

    run(config, out, resume)
    _say_what_follows(out)


def _say_what_follows(out: Path) -> None:
    results([("Genotype", out / "genotype.json"), ("History", out / "history.jsonl")])
    next_command("fastnas", "decode", out)
