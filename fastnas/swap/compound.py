"""Promises that consist of several values: concatenations, stacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastnas import _C
from fastnas.swap.promise import PROMISED, Promise, Value, computed, forwarded


class Joined(Promise):
    """The concatenation of `parts` along channels, then `moves`: names and arguments of methods that only reorder."""

    __slots__ = ("dtype", "moves", "parts", "run", "shape", "tensor")

    def __init__(
        self, parts: tuple[Value, ...], moves: tuple[tuple[Any, ...], ...], shape: torch.Size, dtype: torch.dtype
    ) -> None:
        self.run, self.shape, self.dtype = parts[0].run, shape, dtype
        self.tensor: Tensor | None = None
        self.parts, self.moves = parts, moves

    def __mul__(self, other: Any) -> Any:
        if self.tensor is None and self.run.sums() and self.run.weighs(other):
            parts = tuple(part * other for part in self.parts)
            return Joined(parts, self.moves, self.shape, parts[0].dtype)
        return self.compute() * computed(other)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if isinstance(other, int | float) and other == 0:
            return self  # where `sum` begins
        if type(other) is Joined and self._adds_up_with(other):
            parts = tuple(mine + its for mine, its in zip(self.parts, other.parts, strict=True))
            return Joined(parts, self.moves, self.shape, torch.promote_types(self.dtype, other.dtype))
        return self.compute() + computed(other)

    __radd__ = __add__

    def _adds_up_with(self, other: Joined) -> bool:
        here = self.run is other.run and self.run.sums() and self.tensor is None and other.tensor is None
        return here and self.moves == other.moves and [p.shape for p in self.parts] == [p.shape for p in other.parts]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _C.PRODUCTS | _C.SUMS and not kwargs and len(args) == 2:
            mine, other = args if isinstance(args[0], Joined) else reversed(args)
            return mine * other if name in _C.PRODUCTS else mine + other
        return cls.other_function(func, args, kwargs)

    @property
    def values(self) -> Sequence[Value]:
        """Its parts."""
        return self.parts

    def moved(self, whole: Tensor) -> Tensor:
        """What the concatenated parts become."""
        for name, *args in self.moves:
            whole = getattr(whole, name)(*args)
        return whole

    def _move(self, name: str, shape: Sequence[int], *args: int) -> Joined:
        return Joined(self.parts, (*self.moves, (name, *args)), torch.Size(shape), self.dtype)

    def view(self, *shape: Any) -> Any:
        """As of a tensor."""
        return self._sized("view", shape)

    def reshape(self, *shape: Any) -> Any:
        """As of a tensor."""
        return self._sized("reshape", shape)

    def _sized(self, name: str, shape: tuple[Any, ...]) -> Any:
        sizes = _spread(shape)
        if self.tensor is not None or not all(isinstance(size, int) for size in sizes) or sizes.count(-1) > 1:
            return getattr(self.compute(), name)(*shape)
        if -1 in sizes:
            rest = math.prod(size for size in sizes if size != -1)
            sizes = tuple(self.shape.numel() // max(rest, 1) if size == -1 else size for size in sizes)
        if math.prod(sizes) != self.shape.numel():
            return getattr(self.compute(), name)(*shape)
        return self._move(name, sizes, *sizes)

    def permute(self, *dims: Any) -> Any:
        """As of a tensor."""
        order = _spread(dims)
        if self.tensor is not None or sorted(d % len(self.shape) for d in order) != list(range(len(self.shape))):
            return self.compute().permute(*dims)
        return self._move("permute", [self.shape[d] for d in order], *order)

    def transpose(self, first: int, second: int) -> Any:
        """As of a tensor."""
        if self.tensor is not None:
            return self.tensor.transpose(first, second)
        sizes = list(self.shape)
        sizes[first], sizes[second] = sizes[second], sizes[first]
        return self._move("transpose", sizes, first, second)

    def contiguous(self) -> Any:
        """As of a tensor."""
        return self if self.tensor is not None else self._move("contiguous", self.shape)


class Stacked(Promise):
    """The stack of `parts` of one shape along a new first dimension."""

    __slots__ = ("dtype", "parts", "run", "shape", "tensor")

    def __init__(self, parts: tuple[Value, ...]) -> None:
        self.run, self.dtype = parts[0].run, parts[0].dtype
        self.shape = torch.Size([len(parts), *parts[0].shape])
        self.tensor: Tensor | None = None
        self.parts = parts

    @property
    def values(self) -> Sequence[Value]:
        """Its parts."""
        return self.parts

    @property
    def origins(self) -> Sequence[Promise]:
        """Its parts."""
        return self.parts

    def compute(self) -> Tensor:
        """The result."""
        if self.tensor is None:
            self.tensor = torch.stack(self.run.tensors(self.parts))
        return self.tensor

    def __mul__(self, other: Any) -> Any:
        one_each = isinstance(other, Tensor) and other.ndim == 5 and other.numel() == other.shape[0] == len(self.parts)
        weights = other.unbind() if one_each else [other] * len(self.parts)
        if self.tensor is None and self.run.sums() and all(map(self.run.weighs, weights)):
            return Stacked(tuple(part * weight for part, weight in zip(self.parts, weights, strict=True)))
        return self.compute() * computed(other)

    __rmul__ = __mul__

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        """As of a tensor; over the parts alone it is promised."""
        over = {"dim": args[0], **kwargs} if len(args) == 1 else kwargs
        if self.tensor is not None or over not in ({"dim": 0}, {"dim": (0,)}, {"dim": [0]}) or len(args) > 1:
            return self.compute().sum(*args, **kwargs)
        return sum(self.parts[1:], self.parts[0])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _C.PRODUCTS and not kwargs and len(args) == 2:
            mine, other = args if isinstance(args[0], Stacked) else reversed(args)
            return mine * other
        if name == "sum" and args and isinstance(args[0], Stacked):
            return args[0].sum(*args[1:], **(kwargs or {}))
        return cls.other_function(func, args, kwargs)


def _spread(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes or dimensions that are given one by one, or as one sequence."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else given


def _stacked(tensors: Any, dim: int = 0, **kwargs: Any) -> Stacked | None:
    """The promise of a stack; None if it has to be computed."""
    if kwargs or dim != 0 or not isinstance(tensors, list | tuple) or not all(type(t) is Value for t in tensors):
        return None
    alike = {(t.run, t.shape, t.dtype) for t in tensors}
    return Stacked(tuple(tensors)) if len(alike) == 1 and tensors[0].run.open() else None


def _joined(tensors: Any, dim: int = 0, **kwargs: Any) -> Joined | None:
    """The promise of a concatenation; None if it has to be computed."""
    dim = kwargs.pop("axis", dim)
    first = next((t for t in tensors if isinstance(t, Promise)), None) if isinstance(tensors, list | tuple) else None
    if first is None or kwargs or dim not in (1, -3) or not first.run.open():
        return None
    if len({id(t) for t in tensors}) < len(tensors):
        return None
    parts: list[Value] = []
    for t in tensors:
        part = _part(t, first)
        if part is None:
            return None
        parts.append(part)
    channels, shape = sum(part.shape[1] for part in parts), first.shape
    return Joined(tuple(parts), (), torch.Size([shape[0], channels, *shape[2:]]), first.dtype)


def _part(t: Any, first: Promise) -> Value | None:
    """What is concatenated with `first`, as a value; None if it cannot be one."""
    shape = first.shape
    if not isinstance(t, Tensor | Value) or t.dtype != first.dtype:
        return None
    if not t.ndim == len(shape) == 4 or t.shape[0] != shape[0] or t.shape[2:] != shape[2:] or 0 in t.shape:
        return None
    part: Value | None = t if type(t) is Value else first.run.of(t)
    return part if part is not None and part.run is first.run else None


def _moved(name: str) -> Any:
    def move(*args: Any, **kwargs: Any) -> Any:
        return getattr(args[0], name)(*args[1:]) if args and type(args[0]) is Joined and not kwargs else None

    return move


PROMISED.update(dict.fromkeys(("cat", "concat", "concatenate"), _joined))
PROMISED["stack"] = _stacked
PROMISED.update({name: _moved(name) for name in ("view", "reshape", "transpose", "permute", "contiguous")})
for _name in ("__add__", "__radd__"):
    setattr(Stacked, _name, forwarded(_name))
