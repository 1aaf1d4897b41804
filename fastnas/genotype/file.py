"""Genotypes as JSON files that a person can read."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, overload

from fastnas.genotype.genotype import AutoDeepLabGenotype, CellGenotype, Genotype, GenotypeError, shorten

HEADER = {"format": "fastnas-genotype", "version": 1}
KINDS = {Genotype: "darts", AutoDeepLabGenotype: "auto-deeplab"}
MAX_BYTES = 1 << 20

AnyGenotype = TypeVar("AnyGenotype", Genotype, AutoDeepLabGenotype)


def save(genotype: Genotype | AutoDeepLabGenotype, path: str | os.PathLike[str]) -> None:
    """Write a genotype: to a temporary name first, so that the file is whole or absent.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(dumps(genotype))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def dumps(genotype: Genotype | AutoDeepLabGenotype) -> str:
    """The text of a genotype's file."""
    content = _header(type(genotype)) | vars(genotype)
    lines = (
        f'  "{key}": {_dump_cell(value) if isinstance(value, CellGenotype) else json.dumps(value)}'
        for key, value in content.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _header(kind: type[Genotype | AutoDeepLabGenotype]) -> dict[str, Any]:
    return HEADER | {"kind": KINDS[kind]}


def _dump_cell(cell: CellGenotype) -> str:
    nodes = ",\n".join(f"      {json.dumps(node)}" for node in cell.nodes)
    return f'{{\n    "nodes": [\n{nodes}\n    ],\n    "concat": {json.dumps(cell.concat)}\n  }}'


@overload
def load(path: str | os.PathLike[str]) -> Genotype: ...
@overload
def load(path: str | os.PathLike[str], kind: type[AnyGenotype]) -> AnyGenotype: ...
def load(path: str | os.PathLike[str], kind: type[Any] = Genotype) -> Any:
    """Read a genotype.

    Args:
        kind: what the file must hold, `Genotype` (DARTS) or `AutoDeepLabGenotype`.

    Raises:
        GenotypeError: there is no such file, or it does not hold such a genotype; the message names the file and the
            place.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise GenotypeError(f"{path}: expected a genotype file, but reading it gave {error.strerror!r}") from error
    if len(content) > MAX_BYTES:
        raise GenotypeError(f"{path}: expected a genotype file, got one of more than {MAX_BYTES} bytes")
    try:
        return parse(json.loads(content.decode("utf-8")), kind)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise GenotypeError(f"{path}: expected JSON, got bytes that are no text (UTF-8) at {error.start}") from None
    except RecursionError:
        raise GenotypeError(f"{path}: expected JSON of a genotype's depth, got brackets nested too deeply") from None
    except ValueError as error:
        raise GenotypeError(f"{path}: expected JSON, got other text ({error})") from None


def parse(data: Any, kind: type[AnyGenotype]) -> AnyGenotype:
    """The genotype that the content of a file, as Python's `json` reads it, stands for.

    Raises:
        GenotypeError: it stands for none of this kind; the message names the place.
    """
    if not isinstance(data, dict):
        raise GenotypeError(f"expected an object, got {_kind(data)}")
    for key, expected in _header(kind).items():
        # In Python `True == 1`; their texts differ.
        if repr(data.get(key)) != repr(expected):
            raise GenotypeError(f"expected {key} {expected!r}, got {_value(data, key)}")
    names = [field.name for field in fields(kind)]
    parts: list[Any] = [_parse_path(data) if name == "path" else _parse_cell(name, data.get(name)) for name in names]
    return kind(*parts)


def _parse_path(data: dict[str, Any]) -> tuple[int, ...]:
    path = data.get("path")
    if not isinstance(path, list) or not all(type(scale) is int for scale in path):
        raise GenotypeError(f"path: expected a list of whole numbers, got {_value(data, 'path')}")
    return tuple(path)


def _parse_cell(name: str, data: Any) -> CellGenotype:
    if not isinstance(data, dict):
        raise GenotypeError(f"{name}: expected an object with lists 'nodes' and 'concat', got {_kind(data)}")
    for key in ("nodes", "concat"):
        if not isinstance(data.get(key), list):
            raise GenotypeError(f"{name}: expected a list {key!r}, got {_value(data, key)}")
    if not all(type(state) is int for state in data["concat"]):
        raise GenotypeError(f"{name}: expected whole numbers in concat, got {shorten(data['concat'])}")
    nodes = tuple(
        tuple(_parse_edge(name, i, pair) for pair in _pairs(name, i, node)) for i, node in enumerate(data["nodes"])
    )
    try:
        return CellGenotype(nodes, tuple(data["concat"]))
    except GenotypeError as error:
        raise GenotypeError(f"{name}: {error}") from None


def _pairs(name: str, node: int, pairs: Any) -> list[Any]:
    if not isinstance(pairs, list):
        raise GenotypeError(f"{name}: node {node}: expected a list of [operation, source], got {_kind(pairs)}")
    return pairs


def _parse_edge(name: str, node: int, pair: Any) -> tuple[str, int]:
    match pair:
        case [str(operation), int(source)] if not isinstance(source, bool):
            return operation, source
    raise GenotypeError(f"{name}: node {node}: expected [operation, source], got {shorten(pair)}")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "nothing"}
    return kinds.get(type(value), "a number")


def _value(data: dict[str, Any], key: str) -> str:
    return shorten(data[key]) if key in data else "nothing"
