"""Changes what modules compute, and nothing else about them: each becomes a subclass of its own class, in place.

Parameters, buffers, submodules, names and hooks stay where they are. The subclass bears the name of the class, and
copies and pickles as it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from fastnas.swap.build import Plan
from fastnas.swap.compound import Joined
from fastnas.swap.graph import evaluate
from fastnas.swap.lazy import Run, allowed, current
from fastnas.swap.promise import Value
from fastnas.swap.recipes import STATE, Recipe, hook_stores

# For a region; code that samples candidates always does something new.
_REMEMBERED = 1 << 20  # bytes of histories
_OPERATORS = 256


@dataclass(eq=False, slots=True)
class Met:
    """An evaluation of promises that followed on a certain history.

    Attributes:
        plan: the operator that computes these; None before it is known, and where there is not one.
    """

    plan: Plan | None = None


class Home:
    """What a region keeps between its calls.

    Attributes:
        memory, backend: of the operator.
        cells: the operators met so far, by their graph.
        orders: indices that put entries of α into an operator's order.
        alone: numbers of the values in a call that are computed by themselves.
        kinds: numbers of candidates, evaluations and sorts of tensors, by which histories tell them.
        in_order: whether a candidate that runs again waits for what was promised of it: no operator computes both.
        copies: whether results are copies, since the code around works in place on them; an operator keeps its own.
    """

    def __init__(self, inner: Sequence[nn.Module], memory: str, backend: str, copies: bool = False) -> None:
        self.memory, self.backend, self.copies = memory, backend, copies
        self.cells: dict[Any, Any] = {}
        self.orders: dict[Any, Tensor] = {}
        self.alone: set[int] = set()
        self.in_order = False
        self.kinds: dict[Any, int] = {}
        self._met: dict[tuple[bytes, tuple[int, ...]], Met] = {}
        self._remembered = 0
        self._hooks = [store for m in inner for store in hook_stores(m)]

    def __getstate__(self) -> dict[str, Any]:
        # which are of these very modules
        return {**self.__dict__, "cells": {}, "orders": {}, "kinds": {}, "_met": {}, "_remembered": 0}

    def met(self, history: bytes, values: tuple[int, ...]) -> Met:
        """What is known of an evaluation of `values` that ends this history; the same object each time."""
        found = self._met.get((history, values))
        if found is None:
            self._remembered += len(history)
            if self._remembered > _REMEMBERED or len(self.cells) > _OPERATORS:
                for kept in (self._met, self.kinds, self.cells, self.orders):
                    kept.clear()
                self._remembered = len(history)
            found = self._met[history, values] = Met()
        return found

    def runs(self) -> bool:
        """Whether nobody looks at what passes between the modules inside."""
        everywhere = (
            hooks._global_forward_hooks,
            hooks._global_forward_pre_hooks,
            hooks._global_backward_hooks,
            hooks._global_backward_pre_hooks,
        )
        return not any(self._hooks) and not any(everywhere)


class _Swapped:
    """A swapped module; the first of its bases, its own class is the second."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        made, arguments, *rest = reduced
        kind = type(self)
        original = kind.__bases__[1]
        return (
            _remake,
            (kind.__bases__[0], original, made, tuple(original if a is kind else a for a in arguments)),
            *rest,
        )


class _Candidate(_Swapped):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # `nn.Module.__call__` looks for hooks, of which there are none where something is promised.
        promised = self._promised(args, kwargs)
        return super().__call__(*args, **kwargs) if promised is None else promised  # type: ignore[misc]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        promised = self._promised(args, kwargs)
        if promised is not None:
            return promised
        run = current()
        if run is not None and STATE in self.__dict__:
            run.settle(self.__dict__[STATE], None)
        return super().forward(*args, **kwargs)  # type: ignore[misc]

    def _promised(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value | None:
        run = current()
        if run is None or kwargs or len(args) != 1:
            return None
        own = self.__dict__
        if "_is_replica" in own or STATE not in own:
            return None  # of nn.DataParallel, whose parameters are somewhere else; or made by `type(module)(...)`
        x = args[0]
        promised: Value | None = run.promise(own[STATE], x.compute() if type(x) is Joined else x)
        return promised


class _Region(_Swapped):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # a decorator would import torch._dynamo, which takes seconds
            return torch.compiler.disable(_run_region)(self, args, kwargs)  # type: ignore[no-untyped-call]
        return _run_region(self, args, kwargs)


def _run_region(region: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    home: Home | None = region.__dict__.get(STATE)
    forward = super(_Region, region).forward
    if home is None or current() is not None or not allowed() or not home.runs():
        return forward(*args, **kwargs)
    with Run(home, evaluate, (args, kwargs)) as run:
        return run.finish(forward(*args, **kwargs))


def swap(module: nn.Module, state: Recipe | Home) -> None:
    """Makes `module` a candidate that can be promised, or a region."""
    base = _Candidate if isinstance(state, Recipe) else _Region
    module.__dict__[STATE] = state
    module.__class__ = _subclass(base, cast(Any, type(module)))


def restore_module(module: nn.Module) -> None:
    """Undoes `swap`."""
    if is_swapped(module):
        module.__class__ = type(module).__bases__[1]
        module.__dict__.pop(STATE, None)


def is_swapped(module: nn.Module) -> bool:
    """Whether `swap` has changed the module, or the one whose class it has: code may make others by `type(module)`."""
    return isinstance(module, _Swapped)


def is_candidate(module: nn.Module) -> bool:
    """Whether `swap` has made the module a candidate."""
    return isinstance(module, _Candidate)


def why_not(module: nn.Module) -> str | None:
    """Why a module's class cannot be changed; None if it can."""
    if "forward" in module.__dict__:
        return "its forward has been replaced on the instance"
    if isinstance(module, torch.jit.ScriptModule):
        return "it is a TorchScript module"
    return None


@cache
def _subclass(base: type, original: type) -> type:
    names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    return type(original.__name__, (base, original), names)


def _remake(base: type, original: type, made: Any, arguments: tuple[Any, ...]) -> Any:
    module = made(*arguments)
    module.__class__ = _subclass(base, original)
    return module
