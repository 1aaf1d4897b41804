"""What a module computes, as the list of operations that one run of it makes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from fastnas.measure import Watching

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


@dataclass(eq=False)
class Operation:
    """One operation: an overload of ATen, or a convolution or batch norm as a module."""

    function: Any
    arguments: tuple[Any, ...]
    result: Tensor


@dataclass
class Trace:
    """All operations of a run, in order. In-place ReLUs stand in `rectified` instead, by the number of their tensor.

    Modules inside that return what they were given, and have attributes of their own, stand in `idle`: a dropout of
    probability 0. Tensors are told apart by `id`, and all of them are kept alive by the trace.
    """

    operations: list[Operation] = field(default_factory=list)
    rectified: set[int] = field(default_factory=set)
    idle: list[nn.Module] = field(default_factory=list)

    def producer(self, t: Tensor) -> Operation | None:
        """The operation that made `t`."""
        return next((op for op in self.operations if op.result is t), None)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is a plain convolution or batch norm: of that class, or of one that computes as it does."""
    kind: Any = type(module)
    if isinstance(module, nn.Conv2d):
        return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward
    return isinstance(module, nn.BatchNorm2d) and kind.forward is nn.BatchNorm2d.forward


class _Recorder(Watching):
    def __init__(self, whole: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._whole = whole
        self.trace = Trace()
        self.inside = 0  # leaves that are running
        self._given: dict[nn.Module, int | None] = {}  # versions of what modules were given last

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.inside:
            return result
        if func is torch.ops.aten.relu_.default:
            self.trace.rectified.add(id(args[0]))
            return result
        first = result[0] if isinstance(result, tuple | list) else result
        self.trace.operations.append(Operation(func, (*args, *(kwargs or {}).values()), first))
        return result

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.inside += is_leaf(module)
        self._given[module] = args[0]._version if args and isinstance(args[0], Tensor) else None

    def leave(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        if is_leaf(module):
            self.inside -= 1
            self.trace.operations.append(Operation(module, args, result))
        elif module is not self._whole and self._returns_its_input(module, args, result):
            self.trace.idle.append(module)

    def _returns_its_input(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> bool:
        """As it was given, though the module has attributes of its own."""
        same = bool(args) and result is args[0] and result._version == self._given[module]
        return same and bool(vars(module).keys() - OF_EVERY_MODULE)


def trace(module: nn.Module, x: Tensor) -> tuple[Trace, Any]:
    """Runs `module` on `x`, without gradients and with its buffers restored; the operations, and the result."""
    recorder = _Recorder(module)
    handles = [
        hooks.register_module_forward_pre_hook(recorder.enter),
        hooks.register_module_forward_hook(recorder.leave),
    ]
    try:
        with torch.no_grad(), borrowed_buffers(module), recorder:
            result = module(x)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.trace, result


@contextmanager
def generators(seed: int | None = None) -> Iterator[None]:
    """Leaves PyTorch's, Python's and NumPy's random generators as they were; with `seed`, seeds them for the while."""
    numpy = sys.modules.get("numpy")  # code that draws from it has imported it
    python, arrays = random.getstate(), numpy.random.get_state() if numpy else None
    try:
        with torch.random.fork_rng():
            if seed is not None:
                torch.manual_seed(seed)
                random.seed(seed)
                if numpy:
                    numpy.random.seed(seed)
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(arrays)


@contextmanager
def borrowed_buffers(module: nn.Module) -> Iterator[None]:
    """Lets `module` work on copies of its buffers."""
    owners = {id(m): m for m in module.modules()}.values()
    kept = [(m, dict(m._buffers)) for m in owners]
    for m, buffers in kept:
        m._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for m, buffers in kept:
            m._buffers.update(buffers)


@contextmanager
def training(module: nn.Module, mode: bool) -> Iterator[None]:
    """Puts all modules into training or eval mode, and each back into its own afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    for m, _ in modes:
        m.training = mode
    try:
        yield
    finally:
        for m, before in modes:
            m.training = before
