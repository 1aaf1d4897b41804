"""Makes command-line options of the fields of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

import annotated_types
import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from fastnas.search.config import RunConfig, option
from fastnas.search.config_file import presets
from fastnas.search.options import Options

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(model: type[RunConfig], without: Iterable[str] = ()) -> Callable[[Command], Command]:
    """Adds an option for every field of `model` but `without`: what only it has first, then what all runs have."""
    own = [name for name in model.model_fields if name not in RunConfig.model_fields]
    names = ["data", *own, *(name for name in RunConfig.model_fields if name != "data")]
    return field_options({name: model.model_fields[name] for name in names if name not in without})


def field_options(fields: Mapping[str, FieldInfo]) -> Callable[[Command], Command]:
    """Adds an option for every field, by name."""

    def add(command: Command) -> Command:
        for name, field in reversed(list(fields.items())):
            command = _option(name, field)(command)
        return command

    return add


def run_options(command: Command) -> Command:
    """Adds --out, --resume, and where options come from beside the command line."""
    return out_option(resume_option(file_options(command)))


def out_option(command: Command, required: bool = True) -> Command:
    """Adds --out."""
    folder = click.Path(path_type=Path)
    return click.option("--out", type=folder, required=required, help="Folder for the results, made if missing.")(
        command
    )


def resume_option(command: Command) -> Command:
    """Adds --resume."""
    return click.option("--resume", is_flag=True, help="Go on with the run in --out, which was interrupted.")(command)


def file_options(command: Command) -> Command:
    """Adds where options come from beside the command line."""
    file = click.Path(path_type=Path)
    for declaration in (
        click.option(
            "--list-presets",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_list,
            help="Show them and exit.",
        ),
        click.option("--preset", metavar="NAME", help="Settings of a paper; --config and other options change them."),
        click.option("--config", type=file, metavar="FILE", help="YAML, TOML or JSON with options, or a config.json."),
    ):
        command = declaration(command)
    return command


def _list(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        for name, command, description in presets():
            click.echo(f"{name:<34}{command:<24}{description}")
        ctx.exit()


def given(ctx: click.Context, fields: Iterable[str], command: str) -> Options:
    """Those of `fields` that the user set on the command line, and all options in the files that it names.

    Raises:
        UserError: a file cannot be read, or there is no such preset for `command`.
    """
    options = Options({name: ctx.params[name] for name in fields if _is_given(ctx, name)}, {})
    return options.after_files(command, ctx.params["config"], ctx.params["preset"])


def _is_given(ctx: click.Context, name: str) -> bool:
    return name in ctx.params and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    kind = next(arg for arg in (get_args(field.annotation) or (field.annotation,)) if arg is not NoneType)
    flag = option(name)
    default = None if field.is_required() else field.default
    declaration = f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag
    return click.option(
        declaration,
        type=_type(field.annotation, kind, field.metadata),
        default=default,
        show_default=default is not None,
        help=field.description,
    )


def _type(annotation: Any, kind: Any, constraints: list[Any]) -> Any:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    if kind is int or kind is float:
        return (click.IntRange if kind is int else click.FloatRange)(**_range(constraints))
    return kind


def _range(constraints: list[Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for constraint in constraints:
        match constraint:
            case annotated_types.Ge(low):
                limits |= {"min": low}
            case annotated_types.Gt(low):
                limits |= {"min": low, "min_open": True}
            case annotated_types.Le(high):
                limits |= {"max": high}
            case annotated_types.Lt(high):
                limits |= {"max": high, "max_open": True}
    return limits
