"""--strategy, and the options that only some strategies have."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from fastnas.cli.options import Command, config_options, field_options, given
from fastnas.errors import UserError
from fastnas.search.config import CONFIG, SearchConfig, StrategyConfig, make_config, read_config, spelled
from fastnas.search.strategies import STRATEGIES, find_strategy

_FIELD = SearchConfig.model_fields["strategy"]
_DEFAULT = str(_FIELD.default)


def strategy_options(command: Command) -> Command:
    """Adds --strategy, the options that searches share, and those of single strategies, with their names."""
    names = "; ".join(f"{name}: {kind.summary}" for name, kind in STRATEGIES.items())
    choice = click.option(
        "--strategy",
        type=click.Choice(list(STRATEGIES)),
        default=_DEFAULT,
        show_default=True,
        help=f"{_FIELD.description} {names}.",
    )
    shared = config_options(SearchConfig, without=["strategy"])
    return choice(shared(field_options(_particular())(command)))


def strategy_config(ctx: click.Context, out: Path, resume: bool) -> StrategyConfig:
    """The options of the strategy that was chosen, or that the run to resume was started with.

    Raises:
        UserError: an option is missing, out of its range or not one of the strategy's, or there is no run to resume.
    """
    shown = {**SearchConfig.model_fields, **_particular()}
    options = given(ctx, shown, "search")
    if resume:
        stored = read_config(out / CONFIG, "search")
        before = str(stored.get("strategy", _DEFAULT))
        if options.values.get("strategy", before) != before:
            raise UserError(f"--strategy is {options.values['strategy']}, but {out} was started with {before}")
        options = options.after(stored, out / CONFIG)
    name = str(options.values.get("strategy", _DEFAULT))
    kind = find_strategy(name).options
    for field in options.values:
        if field in shown and field not in kind.model_fields:
            raise UserError(f"{spelled(field, options.origins)} is no option of --strategy {name}")
    return make_config(kind, options.values, options.origins)


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
