"""Promises of tensors: what a region's code holds instead of the results of its candidates.

A `Value` is a sum of weighted terms, a `Joined` the concatenation of several along channels, perhaps with its channels
put into another order. Products with weights, sums and concatenations of promises are promises again. Anything else
that is done with one computes it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fastnas.swap.recipes import Recipe

if TYPE_CHECKING:
    from fastnas.swap.lazy import Run

Weight = Tensor | float
_NUMBER = (int, float)


@dataclass(eq=False, slots=True)
class Call:
    """A candidate's call that has been promised.

    Attributes:
        source: its input.
        shape: of its result.
        number: its place among the calls of its run.
        value: what was promised for it.
        repeats: how often the region's code made it: with the same input, it gives the same.
        done: whether it has been computed, and its running statistics updated.
    """

    recipe: Recipe
    source: Tensor | Value
    shape: torch.Size
    number: int
    value: Value | None = None
    repeats: int = 1
    done: bool = False


class Term(NamedTuple):
    """The product of `weights`, 1 if there is none, times a candidate's result, a tensor, or another value."""

    weights: tuple[Weight, ...]
    what: Call | Tensor | Value

    @property
    def source(self) -> Tensor | Value:
        """What it reads: of a candidate's result, the candidate's input."""
        return self.what.source if type(self.what) is Call else self.what  # type: ignore[return-value]


class Promise:
    """What a tensor of `shape` and `dtype` will be; `tensor`, once it has been computed."""

    __slots__ = ("__weakref__", "dtype", "run", "shape", "tensor")

    def __init__(self, run: Run, shape: torch.Size, dtype: torch.dtype) -> None:
        self.run, self.shape, self.dtype = run, shape, dtype
        self.tensor: Tensor | None = None

    @property
    def values(self) -> Sequence[Value]:
        """The sums that it consists of, in the order of their channels."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The result."""
        return self.run.tensors([self])[0]

    def size(self, dim: int | None = None) -> Any:
        """As of a tensor."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """As of a tensor."""
        return len(self.shape)

    @property
    def ndim(self) -> int:
        """As of a tensor."""
        return len(self.shape)

    def __mul__(self, other: Any) -> Any:
        return _times(self, other)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        return _plus(self, other)

    def __radd__(self, other: Any) -> Any:
        return _plus(other, self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.compute(), name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        lazy = _LAZY.get(name)
        if lazy is not None and not kwargs and len(args) == 2:
            return lazy(*args)
        if name in ("cat", "concat", "concatenate") and args and isinstance(args[0], list | tuple):
            joined = _joined(args[0], *args[1:], **(kwargs or {}))
            if joined is not None:
                return joined
        args, kwargs = tree_map(_computed, (args, kwargs or {}))
        return func(*args, **kwargs)


class Value(Promise):
    """A sum of weighted terms, (N, C, H, W): `weight`, if there is one, times the sum of `parts`.

    A step of a supernet makes thousands of them, most of which nobody looks at: their terms are put together on demand.

    Attributes:
        parts: a candidate's call, terms, or values whose terms are meant.
        number: its place among the values of its run.
    """

    __slots__ = ("_terms", "number", "parts", "weight")

    def __init__(
        self,
        run: Run,
        shape: torch.Size,
        dtype: torch.dtype,
        parts: tuple[Call | Term | Value, ...],
        weight: Weight | None,
        event: tuple[Any, ...],
    ) -> None:
        """`event`: what is done here, for the run's history."""
        self.run, self.shape, self.dtype = run, shape, dtype
        self.tensor = None
        self.parts, self.weight = parts, weight
        self._terms: tuple[Term, ...] | None = None
        if type(parts[0]) is Call and parts[0].value is None:
            parts[0].value = self  # before it may be computed
        self.number = run.values
        run.values += 1
        run.history.append(event)
        if self.number in run.home.alone:  # an earlier call of the region found that it is needed by itself
            run.tensors([self])

    @property
    def values(self) -> Sequence[Value]:
        """Itself."""
        return (self,)

    @property
    def state(self) -> bool:
        """Whether it is the input of a candidate, or part of a sum as it is."""
        return self.number in self.run.states

    @property
    def terms(self) -> tuple[Term, ...]:
        """Weights of weights multiplied out."""
        if self._terms is None:
            self._terms = tuple(_multiplied_out(self))
        return self._terms

    def scaled(self, weight: Weight) -> Value:
        """`weight` times it."""
        run, dtype = self.run, self.dtype
        if isinstance(weight, Tensor) and weight.dtype is not dtype and weight.ndim > 0:
            dtype = torch.promote_types(dtype, weight.dtype)
        part = Term((), self) if self.number in run.states else self
        return Value(run, self.shape, dtype, (part,), weight, (self.number, *run.read.place(weight)))


def _multiplied_out(value: Value) -> Iterator[Term]:
    stack: list[tuple[Call | Term | Value, tuple[Weight, ...]]] = [(value, ())]
    while stack:
        part, weights = stack.pop()
        if type(part) is Value:
            weights = weights if part.weight is None else (part.weight, *weights)
            stack += [(inner, weights) for inner in reversed(part.parts)]
        elif type(part) is Term:
            yield Term((*part.weights, *weights), part.what)
        else:
            yield Term(weights, cast(Call, part))


class Joined(Promise):
    """The concatenation of `parts` along channels, then `moves`: names and arguments of methods that only reorder."""

    __slots__ = ("moves", "parts")

    def __init__(
        self, parts: tuple[Value, ...], moves: tuple[tuple[Any, ...], ...], shape: torch.Size, dtype: torch.dtype
    ) -> None:
        super().__init__(parts[0].run, shape, dtype)
        self.parts, self.moves = parts, moves

    @property
    def values(self) -> Sequence[Value]:
        """Its parts."""
        return self.parts

    def scaled(self, weight: Weight) -> Joined:
        """`weight` times it."""
        parts = tuple(part.scaled(weight) for part in self.parts)
        return Joined(parts, self.moves, self.shape, parts[0].dtype)

    def moved(self, whole: Tensor) -> Tensor:
        """What the concatenated parts become."""
        for name, *args in self.moves:
            whole = getattr(whole, name)(*args)
        return whole

    def _move(self, name: str, shape: Sequence[int], *args: int) -> Joined:
        return Joined(self.parts, (*self.moves, (name, *args)), torch.Size(shape), self.dtype)

    def view(self, *shape: Any) -> Any:
        """As of a tensor."""
        sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if self.tensor is not None or not all(isinstance(size, int) for size in sizes) or sizes.count(-1) > 1:
            return self.compute().view(*shape)
        if -1 in sizes:
            rest = math.prod(size for size in sizes if size != -1)
            sizes = tuple(self.shape.numel() // max(rest, 1) if size == -1 else size for size in sizes)
        if math.prod(sizes) != self.shape.numel():
            return self.compute().view(*shape)
        return self._move("view", sizes, *sizes)

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


def settled(x: Tensor | Value) -> Tensor | Value:
    """The tensor of a value that has been computed; anything else as it is."""
    return x.tensor if type(x) is Value and x.tensor is not None else x


def _forwarded(name: str) -> Callable[..., Any]:
    def operator(self: Promise, *args: Any) -> Any:
        return getattr(self.compute(), name)(*map(_computed, args))

    return operator


for _name in (
    "sub", "rsub", "truediv", "rtruediv", "floordiv", "mod", "pow", "rpow", "matmul", "rmatmul", "neg", "pos", "abs",
    "getitem", "setitem", "len", "iter", "eq", "ne", "lt", "le", "gt", "ge", "bool", "float", "int", "invert", "and",
    "or", "xor", "imul", "isub", "itruediv", "ipow", "format", "array", "contains",
):  # fmt: skip
    setattr(Promise, f"__{_name}__", _forwarded(f"__{_name}__"))
Promise.__hash__ = object.__hash__  # type: ignore[method-assign]


def _computed(leaf: Any) -> Any:
    return leaf.compute() if isinstance(leaf, Promise) else leaf


def _times(a: Any, b: Any) -> Any:
    promise, weight = (a, b) if isinstance(a, Promise) else (b, a)
    if promise.tensor is None and promise.run.sums() and _is_scalar(weight):
        return promise.scaled(weight)
    return _computed(a) * _computed(b)


def _is_scalar(weight: Any) -> bool:
    if isinstance(weight, Tensor):
        # A tensor of one dimension or more takes part in the promotion of dtypes.
        dims = weight.ndim
        return weight.is_floating_point() and (dims == 0 or (dims in (1, 4) and weight.numel() == 1))
    return isinstance(weight, _NUMBER) and not isinstance(weight, bool)


def _plus(a: Any, b: Any) -> Any:
    promise, other = (a, b) if isinstance(a, Promise) else (b, a)
    if isinstance(other, _NUMBER) and other == 0:
        return promise  # where `sum` begins
    total: Promise | None = None
    if promise.run.sums():
        both = type(a) is Joined and type(b) is Joined
        total = _sum_of_joined(a, b) if both else _sum(promise.run, a, b, promise.shape)
    return _computed(a) + _computed(b) if total is None else total


def _sum_of_joined(a: Joined, b: Joined) -> Joined | None:
    alike = a.run is b.run and a.moves == b.moves and a.tensor is None and b.tensor is None
    if not alike or [p.shape for p in a.parts] != [p.shape for p in b.parts]:
        return None
    parts = [_sum(a.run, p, q, p.shape) for p, q in zip(a.parts, b.parts, strict=True)]
    dtype = torch.promote_types(a.dtype, b.dtype)
    return Joined(tuple(p for p in parts if p is not None), a.moves, a.shape, dtype)


def _sum(run: Run, a: Any, b: Any, shape: torch.Size) -> Value | None:
    """The promise of a + b; None if one of these cannot be part of it."""
    first, second = _part(run, a, shape), _part(run, b, shape)
    if first is None or second is None:
        return None
    dtype = a.dtype if a.dtype is b.dtype else torch.promote_types(a.dtype, b.dtype)
    return Value(run, shape, dtype, (first[0], second[0]), None, (first[1], second[1]))


def _part(run: Run, v: Any, shape: torch.Size) -> tuple[Term | Value, int] | None:
    """What a sum consists of: a value's terms, unless it is computed by itself, or a tensor; and the number of that."""
    if type(v) is Value:
        if v.run is not run or v.shape != shape:
            return None
        if v.tensor is None:
            return Term((), v) if v.number in run.states else v, v.number
        return Term((), v), run.number(v)
    if isinstance(v, Tensor) and v.shape == shape and v.is_floating_point():
        return Term((), v), run.number(v)
    return None


def _joined(tensors: Sequence[Any], dim: int = 0, **kwargs: Any) -> Joined | None:
    """The promise of a concatenation; None if it has to be computed."""
    dim = kwargs.pop("axis", dim)
    first = next(t for t in tensors if isinstance(t, Promise))
    run, shape = first.run, first.shape
    if kwargs or dim not in (1, -3) or not run.open() or len({id(t) for t in tensors}) < len(tensors):
        return None
    parts: list[Value] = []
    for t in tensors:
        fits = isinstance(t, Tensor | Value) and t.dtype == first.dtype and t.ndim == len(shape) == 4
        if not fits or t.shape[0] != shape[0] or t.shape[2:] != shape[2:] or 0 in t.shape:
            return None
        part = _part(run, t, t.shape)
        if part is None:
            return None
        parts.append(t if type(t) is Value else Value(run, t.shape, t.dtype, part[:1], None, part[1:]))
    channels = sum(part.shape[1] for part in parts)
    return Joined(tuple(parts), (), torch.Size([shape[0], channels, *shape[2:]]), first.dtype)


_LAZY: dict[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _times),
    **dict.fromkeys(("add", "__add__", "__radd__"), _plus),
}
