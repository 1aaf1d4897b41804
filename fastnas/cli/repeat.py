"""fastnas repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnas.cli.methods import Methods
from fastnas.cli.options import config_options, file_options, given, out_option, resume_option
from fastnas.cli.strategies import strategy_fields, strategy_options
from fastnas.cli.text import results
from fastnas.errors import UserError
from fastnas.search.config import RetrainConfig
from fastnas.search.options import Method, Options
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig

if TYPE_CHECKING:
    from fastnas.search.repeat import RepeatResult

Decorator = Callable[[Any], Any]
_SEEDS = ["seed"]  # --seeds says which


@click.group(cls=Methods, short_help="Search and train once with each of several seeds.")
def repeat() -> None:
    """Search an architecture and train the found network, once with each of several seeds. METHOD is what to search.

    The options of both stand behind `search` and `retrain`, as for these commands.

    \b
      fastnas repeat --seeds 3 --out runs/three search --data digits --epochs 5 retrain --epochs 10 --channels 16
      fastnas repeat --out runs/three --resume
    """


def _add_method(
    method: Method,
    short_help: str,
    search: tuple[Decorator, Iterable[str]],
    retrain: tuple[Decorator, Iterable[str]],
) -> None:
    """Adds `fastnas repeat METHOD`; `search` and `retrain` are its options as a decorator, and their names."""

    @repeat.group(method, chain=True, invoke_without_command=True, short_help=short_help)
    @partial(out_option, required=False)  # checked below: `search --help` needs none
    @resume_option
    @click.option("--seeds", metavar="SEEDS", help="How many, counted from 0, or which, with commas.  [default: 3]")
    def study(**_: Any) -> None:
        """Search and train once with each of several seeds; mean and sample deviation come last.

        Each seed has the folders seed-N/search and seed-N/network in --out. A run that was interrupted is gone on
        with by --resume, which needs no other option; with more --seeds it adds those.

        \b
          fastnas repeat --seeds 3 --out runs/three search --data digits --epochs 5 retrain --epochs 10
          fastnas repeat --out runs/three --resume
        """

    def add_part(name: str, options: Decorator, fields: Iterable[str], summary: str) -> None:
        command = name if method == "darts" else f"{name} {method}"

        @study.command(name, short_help=summary, help=f"{summary} See 'fastnas {command} --help'.")
        @resume_option  # at the end of a long command is where one adds it
        @file_options
        @options
        @click.pass_context
        def part(ctx: click.Context, /, resume: bool, **_: Any) -> tuple[str, Options, bool]:
            return name, given(ctx, fields, command), resume

    add_part("search", *search, "Options of the search.")
    add_part("retrain", *retrain, "Options of the training.")

    @study.result_callback()
    def run(parts: list[tuple[str, Options, bool]], out: Path | None, resume: bool, seeds: str | None) -> None:
        if out is None:
            raise UserError("--out is missing; it names the folder for the results")
        options = {name: given for name, given, _ in parts}
        if len(options) < len(parts):
            names = ", ".join(name for name, *_ in parts)
            raise UserError(f"found the options of {names}; expected those of one search and one retrain")
        search, retrain = (options.get(name, Options({}, {})) for name in ("search", "retrain"))
        resume = resume or any(again for *_, again in parts)
        chosen = None if seeds is None else _seeds(seeds)

        from fastnas.search.repeat import repeat as run_repeatedly
        from fastnas.search.run import RESULT

        found = run_repeatedly(search, retrain, chosen, out, method, resume)
        _print(found)
        results([("Result", out / RESULT)])


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds is {text!r}; expected how many, or which, with commas") from error
    return numbers if len(numbers) > 1 else numbers[0]


def _print(found: RepeatResult) -> None:
    """A row a seed, then mean and deviation."""
    from rich.console import Console
    from rich.table import Table

    figure = next(name for name in found.mean if name.startswith("last_val"))
    best = figure.replace("last", "best")
    what = "accuracy" if figure.endswith("accuracy") else "mIOU"
    table = Table("seed", what, "best epoch", "parameters", "search", "training")
    for row, times in zip(found.runs, found.seconds, strict=True):
        spent = ("-" if time is None else str(timedelta(seconds=round(time))) for time in times)
        table.add_row(str(row["seed"]), f"{row[figure]:.2%}", f"{row[best]:.2%}", f"{row['parameters']:,}", *spent)
    table.add_section()
    for name, values in (("mean", found.mean), ("deviation", found.deviation)):
        accuracies = ("-" if values[key] is None else f"{values[key]:.2%}" for key in (figure, best))
        size = values["parameters"]
        table.add_row(name, *accuracies, "-" if size is None else f"{size:,.0f}")
    Console().print(table)


_add_method(
    "darts",
    "A classifier of images (the default).",
    (partial(strategy_options, without=_SEEDS), strategy_fields()),
    (config_options(RetrainConfig, without=_SEEDS), RetrainConfig.model_fields),
)
_add_method(
    "auto-deeplab",
    "A network for semantic segmentation.",
    (config_options(TrellisSearchConfig, without=_SEEDS), TrellisSearchConfig.model_fields),
    (config_options(TrellisRetrainConfig, without=_SEEDS), TrellisRetrainConfig.model_fields),
)
