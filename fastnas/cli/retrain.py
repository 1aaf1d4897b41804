"""fastnas retrain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnas.cli.options import config_options, given, run_options
from fastnas.cli.text import next_command, results
from fastnas.errors import UserError
from fastnas.search.config import CONFIG, RetrainConfig, make_config, read_config

_GENOTYPE = "genotype.json"


@click.command(short_help="Train the network that a search found.")
@click.argument("source", type=click.Path(path_type=Path), required=False)
@run_options
@config_options(RetrainConfig)
@click.pass_context
def retrain(ctx: click.Context, /, source: Path | None, out: Path, resume: bool, **_: Any) -> None:
    """Train the network that a search found, from scratch, and validate it after each epoch.

    SOURCE is the folder of a search, or a genotype file. The images are those of the search, unless --data
    says otherwise. The defaults are the paper's and take days on a CPU.

    \b
      fastnas retrain runs/digits --out runs/digits-net --channels 16 --layers 4 --epochs 10
      fastnas retrain --out runs/digits-net --resume
    """
    values = given(ctx, RetrainConfig)
    if resume:
        values = read_config(out / CONFIG, "retrain") | values
        path = _genotype_file(source or out)
    elif source is None:
        raise UserError("SOURCE is missing; expected the folder of a search, or a genotype file")
    else:
        path = _genotype_file(source)
        values = _searched_data(path.parent, values) | values
    config = make_config(RetrainConfig, values)

    from fastnas.genotype import GenotypeError, load
    from fastnas.search.driver import retrain as run

    try:
        genotype = load(path)
    except GenotypeError as error:
        raise UserError(str(error)) from error
    result = run(genotype, config, out, resume)
    click.echo(
        f"Validation accuracy {result['best_val_accuracy']:.1%} (epoch {result['best_epoch']}), "
        f"{result['last_val_accuracy']:.1%} at the end; {result['parameters']:,} parameters."
    )
    results(
        [
            ("Result", out / "result.json"),
            ("Best weights", out / "best.pt"),
            ("Last weights", out / "last.pt"),
        ]
    )
    next_command("fastnas", "plot", out)


def _genotype_file(source: Path) -> Path:
    if not source.exists():
        raise UserError(f"there is no {source}; expected the folder of a search, or a genotype file")
    if not source.is_dir():
        return source
    if not (source / _GENOTYPE).exists():
        raise UserError(
            f"{source} holds no {_GENOTYPE}; finish the search by --resume, or run: fastnas decode {source}"
        )
    return source / _GENOTYPE


def _searched_data(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    if "data" in values or not (folder / CONFIG).exists():
        return {}
    searched = read_config(folder / CONFIG, "search")
    return {name: searched.get(name) for name in ("data", "image_size")}
