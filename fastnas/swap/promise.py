"""Promises of tensors: what a region's code holds instead of the results of its candidates.

A `Value` is a sum of weighted terms. Products with weights and sums of values are values again; stacks and
concatenations are promises, too (`compound.py`). Anything else that is done with a promise computes it first.
"""

from __future__ import annotations

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

PROMISED: dict[str, Callable[..., Promise | None]] = {}
"""What promises the results of PyTorch's functions, by their names, or returns None; `compound.py` fills it."""


class Term(NamedTuple):
    """The product of `weights`, 1 if there is none, times a candidate's result, a tensor, or another value."""

    weights: tuple[Weight, ...]
    what: Call | Tensor | Value

    @property
    def source(self) -> Tensor | Value:
        """What it reads: of a candidate's result, the candidate's input."""
        return self.what.source if type(self.what) is Call else self.what  # type: ignore[return-value]


class Promise:
    """What a tensor of `shape` and `dtype` will be; `tensor`, once it has been computed.

    It is no `Tensor` to `isinstance` either: PyTorch takes what it is told there at its word, and crashes.
    """

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
        while type(what) is Value:
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
        promise = PROMISED.get(getattr(func, "__name__", ""))
        promised = None if promise is None else promise(*args, **(kwargs or {}))
        if promised is not None:
            return promised
        promises = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Promise)]
        promises[0].run.tensors([p for promise in promises for p in promise.origins])
        args, kwargs = tree_map(computed, (args, kwargs or {}))
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

    @property
    def identical(self) -> Tensor | Value | None:
        """Where it is the result of an identity: what that was given, which a module of PyTorch's returns, too."""
        weights, what = self.terms[0]
        if len(self.terms) > 1 or weights or type(what) is not Call or what.recipe.name != "skip_connect":
            return None
        return settled(what.source)


def _multiplied_out(value: Value) -> Iterator[Term]:
    stack: list[tuple[Call | Value | Tensor, bool, tuple[Weight, ...]]] = [(value, False, ())]
    while stack:
        what, whole, weights = stack.pop()
        if whole or type(what) is not Value:
            yield Term(weights, what)
        else:
            weights = weights if what.weight is None else (what.weight, *weights)
            stack += [(*part, weights) for part in reversed(what.parts)]


class Data(Promise):
    """What `data` of another promise will be; as a rule code asks only for its size."""

    __slots__ = ("_of", "dtype", "run", "shape")

    def __init__(self, of: Promise) -> None:
        self._of, self.run, self.shape, self.dtype = of, of.run, of.shape, of.dtype

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

    def compute(self) -> Tensor:
        """The result."""
        return self._of.compute().data

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls.other_function(func, args, kwargs)


def settled(x: Tensor | Value) -> Tensor | Value:
    """The tensor of a value that has been computed; anything else as it is."""
    return x.tensor if type(x) is Value and x.tensor is not None else x


def forwarded(name: str) -> Callable[..., Any]:
    """An operator that works on what promises will be."""

    def operator(self: Promise, *args: Any) -> Any:
        return getattr(self.compute(), name)(*map(computed, args))

    return operator


for _name in (
    "sub", "rsub", "truediv", "rtruediv", "floordiv", "mod", "pow", "rpow", "matmul", "rmatmul", "neg", "pos", "abs",
    "getitem", "setitem", "len", "iter", "eq", "ne", "lt", "le", "gt", "ge", "bool", "float", "int", "invert", "and",
    "or", "xor", "imul", "isub", "itruediv", "ipow", "format", "array", "contains",
):  # fmt: skip
    setattr(Promise, f"__{_name}__", forwarded(f"__{_name}__"))
for _name in ("add", "radd", "mul", "rmul"):
    setattr(Data, f"__{_name}__", forwarded(f"__{_name}__"))
Promise.__hash__ = object.__hash__  # type: ignore[method-assign]


def computed(leaf: Any) -> Any:
    """A promise's tensor; anything else as it is."""
    return leaf.compute() if isinstance(leaf, Promise) else leaf
