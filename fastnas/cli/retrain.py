"""fastnas retrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnas.cli.methods import Methods
from fastnas.cli.options import config_options, given, run_options
from fastnas.cli.text import next_command, results, size_text
from fastnas.search.config import RetrainConfig, make_config
from fastnas.search.options import load_genotype, retrain_options
from fastnas.search.segmentation_config import TrellisRetrainConfig

_source = click.argument("source", type=click.Path(path_type=Path), required=False)


@click.group(cls=Methods, short_help="Train the network that a search found.")
def retrain() -> None:
    """Train the network that a search found, from scratch. METHOD is that of the search.

    \b
      fastnas retrain runs/digits --out runs/digits-net --channels 16 --layers 4 --epochs 10
      fastnas retrain auto-deeplab runs/camvid --out runs/camvid-net --filters 8 --epochs 50
    """


@retrain.command(short_help="A classifier of images (the default).")
@_source
@run_options
@config_options(RetrainConfig)
@click.pass_context
def darts(ctx: click.Context, /, source: Path | None, out: Path, resume: bool, **_: Any) -> None:
    """Train the network that a search found, from scratch, and validate it after each epoch.

    SOURCE is the folder of a search, or a genotype file. The images are those of the search, unless --data
    says otherwise. The defaults are the paper's and take days on a CPU.

    \b
      fastnas retrain runs/digits --out runs/digits-net --channels 16 --layers 4 --epochs 10
      fastnas retrain --out runs/digits-net --resume
    """
    options, path = retrain_options(given(ctx, RetrainConfig.model_fields, "retrain"), "retrain", source, out, resume)
    config = make_config(RetrainConfig, options.values, options.origins)

    from fastnas.genotype import Genotype
    from fastnas.search.driver import retrain as run

    result = run(load_genotype(path, Genotype), config, out, resume)
    click.echo(
        f"Validation accuracy {result['best_val_accuracy']:.1%} (epoch {result['best_epoch']}), "
        f"{result['last_val_accuracy']:.1%} at the end; {size_text(result)}."
    )
    _results(out)
    next_command("fastnas", "plot", out)


@retrain.command(short_help="A network for semantic segmentation.")
@_source
@run_options
@config_options(TrellisRetrainConfig)
@click.pass_context
def auto_deeplab(ctx: click.Context, /, source: Path | None, out: Path, resume: bool, **_: Any) -> None:
    """Train the segmentation network that a search found, from scratch, and validate it after each epoch.

    SOURCE is the folder of a search, or a genotype file. The images are those of the search, unless --data
    says otherwise. The defaults follow the paper and want several GPUs.

    \b
      fastnas retrain auto-deeplab runs/camvid --out runs/camvid-net --filters 8 --crop 161 --epochs 50
      fastnas retrain auto-deeplab --out runs/camvid-net --resume
    """
    command = "retrain auto-deeplab"
    options = given(ctx, TrellisRetrainConfig.model_fields, command)
    options, path = retrain_options(options, command, source, out, resume)
    config = make_config(TrellisRetrainConfig, options.values, options.origins)

    from fastnas.genotype import AutoDeepLabGenotype
    from fastnas.search.segmentation_driver import retrain as run

    result = run(load_genotype(path, AutoDeepLabGenotype), config, out, resume)
    click.echo(
        f"Validation mIOU {result['best_val_miou']:.1%} (epoch {result['best_epoch']}), "
        f"{result['last_val_miou']:.1%} at the end; {size_text(result)}."
    )
    _results(out)
    next_command("fastnas", "evaluate", out)


def _results(out: Path) -> None:
    from fastnas.search.run import RESULT

    results(
        [
            ("Result", out / RESULT),
            ("Best weights", out / "best.pt"),
            ("Last weights", out / "last.pt"),
        ]
    )
