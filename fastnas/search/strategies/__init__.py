"""Search strategies, one a file: docs/strategies.md. Importing them does not import PyTorch."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Any

from fastnas.errors import UserError
from fastnas.search.config import StrategyConfig
from fastnas.search.strategies.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy", "find_strategy", "make_strategy"]

_modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]

STRATEGIES: dict[str, type[Strategy[Any]]] = {
    kind.name: kind
    for module in _modules
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Strategy) and not isabstract(kind)
}
"""Every strategy that a module of this package defines, by its name."""


def find_strategy(name: str) -> type[Strategy[Any]]:
    """The strategy called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy is {name!r}; expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def make_strategy(config: StrategyConfig) -> Strategy[Any]:
    """The strategy that `config` names, with these options.

    Raises:
        UserError: there is none, or the options are those of another.
    """
    kind = find_strategy(config.strategy)
    if not isinstance(config, kind.options):
        raise UserError(f"strategy {kind.name} takes {kind.options.__name__}, got {type(config).__name__}")
    return kind(config)
