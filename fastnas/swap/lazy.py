"""Evaluates what a module's own code does with its candidates in one operator.

While a *region* runs, a mixed edge or a cell, a candidate returns a `Value` instead of a tensor: a promise of what
it would have computed. The region's code goes on with it as it was written: a product with a weight and a sum of values
are values again, and a value may be the input of the next candidate. Whatever else is done with a value, a
concatenation or the region's return included, computes it first, with all that leads to it, as one operator. So
nothing has to be known about how the code combines its candidates: its wiring, order and weights are read from what it
does, anew in every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fastnas.swap.recipes import Recipe

if TYPE_CHECKING:
    from fastnas.swap.modules import Home

Weight = Tensor | float


@dataclass(eq=False)
class Call:
    """A candidate's call that has been promised.

    Attributes:
        module: the candidate.
        source: its input.
        value: what was promised for it.
        done: whether it has been computed, and its running statistics updated.
    """

    module: nn.Module
    recipe: Recipe
    source: Tensor | Value
    value: Value | None = None
    done: bool = False


@dataclass(frozen=True, eq=False)
class Term:
    """`weight` times a candidate's result or, without one, times a tensor or another value. 1 without a weight."""

    weight: Weight | None
    what: Call | Tensor | Value

    def scaled(self, weight: Weight) -> Term:
        return Term(weight if self.weight is None else self.weight * weight, self.what)


class Run:
    """One call of a region."""

    def __init__(self, home: Home, evaluate: Callable[[Run, Sequence[Value]], list[Tensor]]) -> None:
        self.home, self._evaluate = home, evaluate
        self._calls: list[Call] = []
        self._versions: list[tuple[Tensor, int]] = []
        self._mode = _mode()
        self._values = 0

    def __enter__(self) -> Run:
        _active.runs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.runs.pop()

    def accepts(self, recipe: Recipe, x: Any) -> bool:
        """Whether a candidate's result on `x` can be promised now."""
        if type(x) is Value:
            return self._mode == _mode() and x.run is self and recipe.fits(x.shape)
        return isinstance(x, Tensor) and x.is_floating_point() and self._mode == _mode() and recipe.fits(x.shape)

    def promise(self, module: nn.Module, recipe: Recipe, x: Tensor | Value) -> Value:
        """What candidate `module` would return for `x`."""
        self.settle(recipe, x)
        x = _settled(x)
        call = Call(module, recipe, x)
        if type(x) is Value:
            x.state = True
        elif isinstance(x, Tensor):
            self.watch(x)
        self._calls.append(call)
        call.value = Value(self, (Term(None, call),), recipe.shape(x.shape))
        self.register(call.value)
        return call.value

    def settle(self, recipe: Recipe, x: Any) -> None:
        """Computes what was promised of a candidate before it runs again: running statistics keep their order."""
        for call in self._calls:
            if call.recipe is recipe and not call.done and recipe.leaves:
                if type(x) is Value:
                    x.compute()  # as a rule that of which the promise is a part
                if not call.done and call.value is not None:
                    call.value.compute()

    def register(self, value: Value) -> None:
        """Numbers a value; computes it at once where an earlier call found that it is needed by itself."""
        value.number = self._values
        self._values += 1
        if value.number in self.home.alone:
            self.tensors([value])

    def watch(self, t: Tensor) -> None:
        """Remembers that a promise reads `t`."""
        if not t.is_inference():
            self._versions.append((t, t._version))

    def tensors(self, values: Sequence[Value]) -> list[Tensor]:
        """The values, computed together as far as they are not yet."""
        todo = list({id(v): v for v in values if v.tensor is None}.values())
        if todo:
            if any(t._version != version for t, version in self._versions):
                raise RuntimeError(
                    "an input of a fused candidate was changed in place before the candidate's result was used; "
                    "fastnas.restore gives the module's own computation back"
                )
            with self._own_mode():
                for value, tensor in zip(todo, self._evaluate(self, todo), strict=True):
                    value.tensor = tensor
        return [v.tensor for v in values]  # type: ignore[misc]

    def finish(self, result: Any) -> Any:
        """The region's result with tensors for values; what its code did not use updates its statistics, too."""
        found: list[Value] = []
        tree_map(lambda leaf: found.append(leaf) if type(leaf) is Value else None, result)
        self.tensors(found)
        for call in self._calls:
            if not call.done and call.value is not None and call.recipe.leaves:
                with torch.no_grad():
                    self.tensors([call.value])
        return tree_map(lambda leaf: leaf.tensor if type(leaf) is Value else leaf, result) if found else result

    def _own_mode(self) -> AbstractContextManager[Any]:
        """The grad and autocast modes in which the values were promised."""
        stack = ExitStack()
        if self._mode != _mode():
            grad, cpu, cuda = self._mode
            if grad and not torch.is_inference_mode_enabled() and not torch.is_grad_enabled():
                stack.enter_context(torch.enable_grad())
            if not grad:
                stack.enter_context(torch.no_grad())
            stack.enter_context(torch.autocast("cpu", enabled=cpu))
            if torch.cuda.is_available():
                stack.enter_context(torch.autocast("cuda", enabled=cuda))
        return stack


class Value:
    """A sum of weighted terms that has not been computed; `tensor` is its result once it has."""

    def __init__(self, run: Run, terms: tuple[Term, ...], shape: torch.Size) -> None:
        self.run, self.terms, self.shape = run, terms, shape
        self.tensor: Tensor | None = None
        self.state = False  # whether it is the input of a candidate, or part of a sum as it is
        self.number = -1

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
        lazy = _LAZY.get(getattr(func, "__name__", ""))
        if lazy is not None and not kwargs and len(args) == 2:
            return lazy(*args)
        if func is torch.cat or func is torch.concat:
            values = [v for v in args[0] if type(v) is Value] if args else []
            if len({id(v.run) for v in values}) == 1 and len({v.shape[2:] for v in values}) == 1:
                values[0].run.tensors(values)  # together
        args, kwargs = tree_map(_computed, (args, kwargs or {}))
        return func(*args, **kwargs)


def _forwarded(name: str) -> Callable[..., Any]:
    def operator(self: Value, *args: Any) -> Any:
        return getattr(self.compute(), name)(*map(_computed, args))

    return operator


for _name in [
    "sub",
    "rsub",
    "truediv",
    "rtruediv",
    "floordiv",
    "mod",
    "pow",
    "rpow",
    "matmul",
    "rmatmul",
    "neg",
    "pos",
    "abs",
    "getitem",
    "setitem",
    "len",
    "iter",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "bool",
    "float",
    "int",
    "invert",
    "and",
    "or",
    "xor",
    "imul",
    "isub",
    "itruediv",
    "ipow",
    "format",
    "array",
    "contains",
]:
    setattr(Value, f"__{_name}__", _forwarded(f"__{_name}__"))
Value.__hash__ = object.__hash__  # type: ignore[method-assign]


@contextmanager
def as_written() -> Iterator[None]:
    """Within it, regions of this thread run their own code on tensors."""
    before, _active.allowed = _active.allowed, False
    try:
        yield
    finally:
        _active.allowed = before


def allowed() -> bool:
    """Whether no `as_written` is in force in this thread."""
    return _active.allowed


def current() -> Run | None:
    """The region's call that runs in this thread."""
    return _active.runs[-1] if _active.runs else None


class _Active(threading.local):
    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.allowed = True


_active = _Active()


def _mode() -> tuple[bool, bool, bool]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


def _computed(leaf: Any) -> Any:
    return leaf.compute() if type(leaf) is Value else leaf


def _settled(x: Tensor | Value) -> Tensor | Value:
    return x.tensor if type(x) is Value and x.tensor is not None else x


def _current_mode(value: Value) -> bool:
    return value.tensor is None and value.run._mode == _mode()


def _times(a: Any, b: Any) -> Any:
    value, weight = (a, b) if type(a) is Value else (b, a)
    if type(weight) is not Value and _current_mode(value) and _is_scalar(weight):
        own = (Term(None, value),) if value.state else value.terms
        product = Value(value.run, tuple(term.scaled(weight) for term in own), value.shape)
        value.run.register(product)
        return product
    return _computed(a) * _computed(b)


def _is_scalar(weight: Any) -> bool:
    if isinstance(weight, Tensor):
        # A tensor of one dimension or more takes part in the promotion of dtypes.
        return weight.is_floating_point() and weight.numel() == 1 and weight.ndim in (0, 1, 4)
    return isinstance(weight, float | int) and not isinstance(weight, bool)


def _plus(a: Any, b: Any) -> Any:
    value, other = (a, b) if type(a) is Value else (b, a)
    run = value.run
    if isinstance(other, int | float) and other == 0:
        return value  # where `sum` begins
    terms = [_terms(run, v, value.shape) for v in (a, b)]
    if _current_mode(value) and terms[0] is not None and terms[1] is not None:
        total = Value(run, (*terms[0], *terms[1]), value.shape)
        run.register(total)
        return total
    return _computed(a) + _computed(b)


def _terms(run: Run, v: Any, shape: torch.Size) -> tuple[Term, ...] | None:
    """The terms that `v` adds to a sum; None if it cannot be part of one."""
    if type(v) is Value:
        if v.run is not run or v.shape != shape:
            return None
        return v.terms if v.tensor is None and not v.state else (Term(None, v),)
    if isinstance(v, Tensor) and v.shape == shape and v.is_floating_point():
        run.watch(v)
        return (Term(None, v),)
    return None


_LAZY = {
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _times),
    **dict.fromkeys(("add", "__add__", "__radd__"), _plus),
}
