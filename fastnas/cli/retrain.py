"""fastnas retrain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fastnas.cli.methods import Methods
from fastnas.cli.options import Options, config_options, given, run_options
from fastnas.cli.text import next_command, results
from fastnas.errors import UserError
from fastnas.search.config import CONFIG, RetrainConfig, RunConfig, make_config, read_config
from fastnas.search.segmentation_config import TrellisRetrainConfig

if TYPE_CHECKING:
    from fastnas.genotype import AutoDeepLabGenotype, Genotype

Kind = TypeVar("Kind", "Genotype", "AutoDeepLabGenotype")

_GENOTYPE = "genotype.json"


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
    options, path = _given(ctx, RetrainConfig, "", source, out, resume, ("data", "image_size"))
    config = make_config(RetrainConfig, options.values, options.origins)

    from fastnas.genotype import Genotype
    from fastnas.search.driver import retrain as run

    genotype = _load(path, Genotype)
    result = run(genotype, config, out, resume)
    click.echo(
        f"Validation accuracy {result['best_val_accuracy']:.1%} (epoch {result['best_epoch']}), "
        f"{result['last_val_accuracy']:.1%} at the end; {result['parameters']:,} parameters."
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
    options, path = _given(ctx, TrellisRetrainConfig, " auto-deeplab", source, out, resume, ("data", "scale"))
    config = make_config(TrellisRetrainConfig, options.values, options.origins)

    from fastnas.genotype import AutoDeepLabGenotype
    from fastnas.search.segmentation_driver import retrain as run

    result = run(_load(path, AutoDeepLabGenotype), config, out, resume)
    click.echo(
        f"Validation mIOU {result['best_val_miou']:.1%} (epoch {result['best_epoch']}), "
        f"{result['last_val_miou']:.1%} at the end; {result['parameters']:,} parameters."
    )
    _results(out)
    next_command("fastnas", "evaluate", out)


def _given(
    ctx: click.Context,
    model: type[RunConfig],
    method: str,
    source: Path | None,
    out: Path,
    resume: bool,
    inherited: Sequence[str],
) -> tuple[Options, Path]:
    """The options, with the `inherited` ones of the search where they are left out, and the genotype's file."""
    options = given(ctx, model.model_fields, f"retrain{method}")
    if resume:
        stored = read_config(out / CONFIG, f"retrain{method}")
        return options.after(stored, out / CONFIG), _genotype_file(source or out)
    if source is None:
        raise UserError("SOURCE is missing; expected the folder of a search, or a genotype file")
    path = _genotype_file(source)
    config = path.parent / CONFIG
    if "data" in options.values or not config.exists():
        return options, path
    searched = read_config(config, f"search{method}")
    return options.after({name: searched.get(name) for name in inherited}, config), path


def _load(path: Path, kind: type[Kind]) -> Kind:
    from fastnas.genotype import GenotypeError, load

    try:
        return load(path, kind)
    except GenotypeError as error:
        raise UserError(str(error)) from error


def _results(out: Path) -> None:
    results(
        [
            ("Result", out / "result.json"),
            ("Best weights", out / "best.pt"),
            ("Last weights", out / "last.pt"),
        ]
    )


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
