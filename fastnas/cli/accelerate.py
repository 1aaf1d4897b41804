"""fastnas accelerate."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnas.errors import UserError

if TYPE_CHECKING:
    from torch import nn


@click.command(short_help="Try fastnas.accelerate on a model of yours.")
@click.argument("factory", metavar="PACKAGE.MODULE:FACTORY")
@click.option(
    "--input",
    "sizes",
    multiple=True,
    required=True,
    help="Shape of an input of the model, such as 16x3x32x32; once for each.",
)
@click.option("--memory", type=click.Choice(["fast", "lean"]), default="fast", show_default=True, help="What to keep.")
@click.option("--backend", default="auto", show_default=True, help="auto, cuda, triton, cpu or reference.")
@click.option("--strict", is_flag=True, help="Fail where a module that looks like a candidate stays as it was.")
def accelerate(factory: str, sizes: tuple[str, ...], memory: str, backend: str, strict: bool) -> None:
    """Try fastnas.accelerate on a model of yours.

    FACTORY is a function or class that makes the model without arguments. Prints what is fused and what is left, with
    the reason, and time, saved and peak memory of a training step before and after.

    \b
      fastnas accelerate my.search:make_network --input 16x3x32x32
    """
    shapes = [_shape(size) for size in sizes]
    model = _model(factory)

    import torch

    import fastnas

    try:
        report = fastnas.accelerate(model, memory, tuple(map(torch.randn, shapes)), strict, backend)
    except ValueError as error:
        raise UserError(str(error)) from error
    click.echo(str(report))


def _shape(size: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        raise UserError(f"--input: expected sizes joined by x, such as 16x3x32x32, got {size!r}")
    return tuple(map(int, size.split("x")))


def _model(factory: str) -> nn.Module:
    from torch import nn

    module, _, name = factory.partition(":")
    if not module or not name:
        raise UserError(f"expected PACKAGE.MODULE:FACTORY, got {factory!r}")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{factory} cannot be imported: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(make):
        raise UserError(f"{factory} must be a function or class that makes the model, got a {type(make).__name__}")
    try:
        model = make()
    except TypeError as error:
        raise UserError(f"{factory} cannot be called without arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{factory} must make an nn.Module, it made a {type(model).__name__}")
    return model
