"""Options from a file in YAML, TOML or JSON, and from the presets that come with fastnas."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastnas.errors import UserError, first_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 14  # options and comments; a parser of YAML takes seconds for more
_PRESETS = Path(__file__).parent.parent / "presets"
_TABLE = {"fastnas", "command", "description", "config"}


def _yaml(text: str) -> Any:
    from ruamel.yaml import YAML  # YAML 1.2: 1e-3 is a number, `no` is a string, a key that comes twice is an error
    from ruamel.yaml.error import YAMLWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", YAMLWarning)
        return YAML(typ="safe", pure=True).load(text)


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key comes twice")
    return values


_FORMATS: dict[str, tuple[str, Callable[[str], Any]]] = {
    ".yaml": ("YAML", _yaml),
    ".yml": ("YAML", _yaml),
    ".toml": ("TOML", tomllib.loads),
    ".json": ("JSON", _json),
}


def read_config_file(path: Path, command: str) -> dict[str, Any]:
    """The options in a file, by the names of their fields, unchecked. Runs no code that the file may hold.

    Args:
        path: a table of options, or one that has them under `config` and says in `command` whose they are, as a run's
            config.json and the presets do.
        command: for which they are read.

    Raises:
        UserError: there is no such file, it cannot be read, it is no table, or its options are another command's.
    """
    table = _read_table(path)
    if isinstance(table.get("config"), dict):
        if unknown := sorted(table.keys() - _TABLE):
            raise UserError(f"{path}: {unknown[0]!r} stands beside 'config'; expected options inside it only")
        writer = table.get("command", command)
        if writer != command:
            raise UserError(f"{path} is for 'fastnas {writer}', expected options of 'fastnas {command}'")
        table = table["config"]
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = str(key).replace("-", "_")
        if name in values:
            raise UserError(f"{path}: {key!r} is there twice")
        values[name] = value
    return values


def _read_table(path: Path) -> dict[Any, Any]:
    kind, parse = _FORMATS.get(path.suffix.lower(), ("", json.loads))
    if not kind:
        raise UserError(f"{path}: expected a name that ends with {', '.join(_FORMATS)}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; expected options in YAML, TOML or JSON") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES} bytes; expected options in {kind}")
    try:
        table = parse(content.decode())
    except Exception as error:  # whatever the parsers raise; deep nesting ends in a RecursionError
        raise UserError(f"{path} cannot be read as {kind}: {_reason(error)}") from error
    if not isinstance(table, dict):
        raise UserError(f"{path}: expected a table of options in {kind}, got {type(table).__name__}")
    return table


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)  # of YAML, whose messages have many lines
    if mark is not None:
        problem = " ".join(str(getattr(error, "problem", "")).split())
        return f"{problem} (at line {mark.line + 1}, column {mark.column + 1})"
    return first_line(error)


def presets() -> Iterator[tuple[str, str, str]]:
    """Name, command and description of the settings that come with fastnas."""
    for file in sorted(_PRESETS.glob("*.toml")):
        table = _read_table(file)
        yield file.stem, table["command"], table["description"]


def read_preset(name: str, command: str) -> dict[str, Any]:
    """The options of a preset.

    Raises:
        UserError: there is none of that name for `command`.
    """
    commands = {preset: of for preset, of, _ in presets()}
    if commands.get(name) == command:
        return read_config_file(_PRESETS / f"{name}.toml", command)
    if name in commands:
        raise UserError(f"--preset {name} is for 'fastnas {commands[name]}', not 'fastnas {command}'")
    own = ", ".join(preset for preset, of in commands.items() if of == command)
    raise UserError(f"there is no preset {name!r}; expected {own}, see 'fastnas {command} --list-presets'")
