"""--strategy, and the options that only some strategies have."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from fastnas.cli.options import Command, config_options, field_options, given
from fastnas.search.config import SearchConfig, StrategyConfig
from fastnas.search.options import STRATEGY, search_config
from fastnas.search.strategies import STRATEGIES

_FIELD = SearchConfig.model_fields["strategy"]


def strategy_options(command: Command, without: Iterable[str] = ()) -> Command:
    """Adds --strategy, the options that searches share but `without`, and those of single strategies."""
    names = "; ".join(f"{name}: {kind.summary}" for name, kind in STRATEGIES.items())
    choice = click.option(
        "--strategy",
        type=click.Choice(list(STRATEGIES)),
        default=STRATEGY,
        show_default=True,
        help=f"{_FIELD.description} {names}.",
    )
    shared = config_options(SearchConfig, without=["strategy", *without])
    return choice(shared(field_options(_particular())(command)))


def strategy_config(ctx: click.Context, out: Path, resume: bool) -> StrategyConfig:
    """What the user set, see `fastnas.search.options.search_config`."""
    return search_config(given(ctx, strategy_fields(), "search"), out, resume)


def strategy_fields() -> dict[str, FieldInfo]:
    """The options of all strategies."""
    return {**SearchConfig.model_fields, **_particular()}


def _particular() -> dict[str, FieldInfo]:
    """The fields that `SearchConfig` has not, with the strategies that have them in their help texts."""
    owners: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for name, kind in STRATEGIES.items():
        for field, info in kind.options.model_fields.items():
            if field not in SearchConfig.model_fields:
                owners.setdefault(field, []).append(name)
                fields.setdefault(field, copy(info))
    for field, info in fields.items():
        info.description = f"{info.description} Only with {', '.join(owners[field])}."
    return fields
