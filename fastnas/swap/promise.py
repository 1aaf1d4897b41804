"""Promises of tensors: what a region's code holds instead of the results of its candidates.

A `Value` is a sum of weighted terms, a `Joined` the concatenation of several along channels, perhaps with its channels
put into another order, a `Stacked` the stack of several. Products with weights, sums, stacks and concatenations of
promises are promises again. Anything else that is done with one computes it first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from fastnas import _C
from fastnas._C import Call

if TYPE_CHECKING:
    from fastnas.swap.lazy import Run

Weight = Tensor | float

_MOVES = ("view", "reshape", "transpose", "permute", "contiguous")
"""Functions by which code puts channels into another order, methods of `Joined`."""


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

    __slots__ = ()

    run: Run
    shape: torch.Size
    dtype: torch.dtype
    tensor: Tensor | None

    @property
    def values(self) -> Sequence[Value]:
        """The sums that it consists of, in the order of their channels."""
        raise NotImplementedError

    @property
    def origins(self) -> Sequence[Promise]:
        """The values and concatenations that have to be computed for it."""
        return (self,)

    @property
    def data(self) -> Any:
        """As of a tensor."""
        return self.tensor.data if self.tensor is not None else Data(self)

    @property
    def device(self) -> torch.device:
        """As of a tensor."""
        what: Tensor | Value = self.values[0]
        while not isinstance(what, Tensor):
            what = what.terms[0].source if what.tensor is None else what.tensor
        return what.device

    @property
    def is_cuda(self) -> bool:
        """As of a tensor."""
        return self.device.type == "cuda"

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

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.compute(), name)

    @classmethod
    def other_function(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """What one of PyTorch's functions makes of promises.

        Stacks and concatenations are promised, and concatenations whose channels are put into another order; for
        anything else what is given is computed, together.
        """
        name = getattr(func, "__name__", "")
        if name in ("cat", "concat", "concatenate") and args:
            joined = _joined(args[0], *args[1:], **(kwargs or {})) if isinstance(args[0], list | tuple) else None
            if joined is not None:
                return joined
        if name == "stack" and args:
            stacked = _stacked(*args, **(kwargs or {}))
            if stacked is not None:
                return stacked
        if name in _MOVES and args and type(args[0]) is Joined and not kwargs:
            return getattr(args[0], name)(*args[1:])
        promises = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Promise)]
        promises[0].run.tensors([p for promise in promises for p in promise.origins])
        args, kwargs = tree_map(_computed, (args, kwargs or {}))
        return func(*args, **kwargs)


class Value(_C.Value, Promise):
    """A sum of weighted terms, (N, C, H, W): `weight`, if there is one, times the sum of `parts`.

    A step of a supernet makes thousands of them, most of which nobody looks at: csrc/swap makes them, their products
    with weights and their sums; their terms are put together on demand.
    """

    __slots__ = ()

    @property
    def values(self) -> Sequence[Value]:
        """Itself."""
        return (self,)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Weights of weights multiplied out."""
        terms: tuple[Term, ...] | None = self.multiplied_out
        if terms is None:
            terms = self.multiplied_out = tuple(_multiplied_out(self))
        return terms


def _multiplied_out(value: Value) -> Iterator[Term]:
    stack: list[tuple[Call | Value | Tensor, bool, tuple[Weight, ...]]] = [(value, False, ())]
    while stack:
        what, whole, weights = stack.pop()
        if whole or type(what) is not Value:
            yield Term(weights, what)
        else:
            weights = weights if what.weight is None else (what.weight, *weights)
            stack += [(*part, weights) for part in reversed(what.parts)]


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
        return self.compute() * _computed(other)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if isinstance(other, int | float) and other == 0:
            return self  # where `sum` begins
        if type(other) is Joined and self._adds_up_with(other):
            parts = tuple(mine + its for mine, its in zip(self.parts, other.parts, strict=True))
            return Joined(parts, self.moves, self.shape, torch.promote_types(self.dtype, other.dtype))
        return self.compute() + _computed(other)

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
        return self.compute() * _computed(other)

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


class Data(Promise):
    """What `data` of another promise will be; as a rule code asks only for its size."""

    __slots__ = ("_of",)

    def __init__(self, of: Promise) -> None:
        self._of = of

    @property
    def run(self) -> Run:  # type: ignore[override]
        """That of the other."""
        return self._of.run

    @property
    def values(self) -> Sequence[Value]:
        """Those of the other."""
        return self._of.values

    @property
    def origins(self) -> Sequence[Promise]:
        """Those of the other."""
        return self._of.origins

    @property
    def tensor(self) -> Tensor | None:  # type: ignore[override]
        """Once the other has been computed."""
        return None if self._of.tensor is None else self._of.tensor.data

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """As of a tensor."""
        return self._of.shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """As of a tensor."""
        return self._of.dtype

    def compute(self) -> Tensor:
        """The result."""
        return self._of.compute().data

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls.other_function(func, args, kwargs)


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
for _name in ("add", "radd", "mul", "rmul"):
    setattr(Data, f"__{_name}__", _forwarded(f"__{_name}__"))
for _name in ("add", "radd"):
    setattr(Stacked, f"__{_name}__", _forwarded(f"__{_name}__"))
Promise.__hash__ = object.__hash__  # type: ignore[method-assign]


def _spread(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sizes or dimensions that are given one by one, or as one sequence."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else given


def _computed(leaf: Any) -> Any:
    return leaf.compute() if isinstance(leaf, Promise) else leaf


def _stacked(tensors: Any, dim: int = 0, **kwargs: Any) -> Stacked | None:
    """The promise of a stack; None if it has to be computed."""
    if kwargs or dim != 0 or not isinstance(tensors, list | tuple) or not all(type(t) is Value for t in tensors):
        return None
    alike = {(t.run, t.shape, t.dtype) for t in tensors}
    return Stacked(tuple(tensors)) if len(alike) == 1 and tensors[0].run.open() else None


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
        part = run.of(t) if isinstance(t, Tensor) else t
        if part is None or part.run is not run:
            return None
        parts.append(part)
    channels = sum(part.shape[1] for part in parts)
    return Joined(tuple(parts), (), torch.Size([shape[0], channels, *shape[2:]]), first.dtype)
