"""Evaluates what a module's own code does with its candidates in one operator.

While a *region* runs, a mixed edge or a cell, a candidate returns a promise instead of a tensor (`promise.py`). The
region's code goes on with it as it was written, and a promise may be the input of the next candidate. What the code
returns, or does not know how to promise, is computed with all that leads to it as one operator. So nothing has to be
known about how the code combines its candidates: its wiring, order and weights are read from what it does, anew in
every call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from fastnas._C import Call
from fastnas.swap.compound import Joined
from fastnas.swap.promise import Promise, Value
from fastnas.swap.read import Tape
from fastnas.swap.recipes import Recipe

if TYPE_CHECKING:
    from fastnas.swap.modules import Home, Met


class Run(Tape):
    """One call of a region, with `arguments`; `evaluate` computes values that nothing has computed yet.

    Attributes:
        twice: whether a candidate has been called twice.
        calls: of candidates, by number.
        inputs, constants: what the promises read, by number; equal constants have the same.
    """

    def __init__(
        self, home: Home, evaluate: Callable[[Run, Sequence[Value]], Tensor | list[Tensor]], arguments: Any
    ) -> None:
        super().__init__(arguments, home.alone, home.kinds)
        self.home, self._evaluate = home, evaluate
        self.twice = False
        devices = compress(("cpu", "cuda"), self.mode[1:])
        self._half = {device: torch.get_autocast_dtype(device) for device in devices}  # of autocast
        self._device = torch.device("cpu")
        self.half = bool(self._half)

    def __enter__(self) -> Run:
        _active.runs.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.runs.pop()
        self.clear()
        self.diverge()

    def _repeats(self, last: Call, source: Tensor | Value) -> bool:
        """Whether a candidate's call is its last one again; if not, what that one promised may have to be computed."""
        self.twice = True
        if last.done:
            return False
        if last.source is source:
            return True
        if self.home.in_order or last.source.shape != source.shape:
            self.settle(last.recipe, source)
        return False

    def value(self, call: Call) -> Value:
        """What was promised for a call; once the run has ended, promised again."""
        value: Value = self.promised(call) if call.value is None else call.value
        return value

    def settle(self, recipe: Recipe, x: Any) -> None:
        """Computes what was promised of a candidate before it runs again: running statistics keep their order."""
        for call in self.pending(recipe):
            if not call.done and type(x) is Value:
                x.compute()  # as a rule that of which the promise is a part
            if not call.done:
                self.value(call).compute()

    def before(self, calls: Sequence[Call]) -> list[Call]:
        """Calls that have to be computed before some, or together with them, and are not: earlier ones of theirs."""
        if not self.twice:
            return []
        inside = set(map(id, calls))
        first: list[Call] = []
        for call in calls:
            for earlier in self.pending(call.recipe):
                if earlier is call:
                    break
                if not earlier.done and id(earlier) not in inside:
                    first.append(earlier)
        return first

    def met(self, values: Sequence[Value]) -> Met:
        """What is known of an evaluation of `values` that follows on this history."""
        met = self.home.met(self.history(), tuple([value.number for value in values]))
        self.begin(met)
        return met

    def diverge(self) -> None:
        """Ends the history: what is done next has not been met before."""
        self.begin(None)

    def tensors(self, promises: Sequence[Promise]) -> list[Tensor]:
        """The promises, computed together as far as they are not yet."""
        for p in promises:
            if type(p) is Value and p.tensor is None and (same := p.identical) is not None:
                self._identify(p, same)
        todo = list({id(p): p for p in promises if p.tensor is None}.values())
        values = list({id(v): v for p in todo for v in p.values if v.tensor is None}.values())
        if values and self.changed():
            raise RuntimeError(
                "an input of a fused candidate was changed in place before the candidate's result was used; "
                "fastnas.restore gives the module's own computation back"
            )
        awaited = [v for v in values if v.state]
        try:
            with self._own_mode():
                self._compute(todo, values)
        except BaseException:
            self.diverge()
            raise
        for v in awaited:
            self.number(v)  # promises that refer to it read its tensor from now on
        return [p.tensor for p in promises]  # type: ignore[misc]

    def _identify(self, value: Value, same: Tensor | Value) -> None:
        value.tensor = self.tensors([same])[0] if type(same) is Value else same  # type: ignore[assignment]
        if value.state:
            self.number(value)

    def finish(self, result: Any) -> Any:
        """The region's result with tensors for promises; what its code did not use updates its statistics, too."""
        found = {id(leaf): leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Promise)}
        self.tensors([origin for promise in found.values() for origin in promise.origins])
        for call in self.calls:
            if not call.done and call.recipe.leaves:
                with torch.no_grad():
                    self.tensors([self.value(call)])
        computed = {key: promise.compute() for key, promise in found.items()}
        if self.home.copies:
            computed = {key: t.clone() for key, t in computed.items()}
        return tree_map(lambda leaf: computed.get(id(leaf), leaf), result) if found else result

    def _compute(self, todo: Sequence[Promise], values: Sequence[Value]) -> None:
        """Computes `todo`, whose parts are the `values`, one after the other, as far as these are not computed."""
        out = self._evaluate(self, values) if values else []
        sizes = [sum(v.shape[1] for v in p.values) for p in todo]
        if isinstance(out, Tensor) and out.shape[1] == sum(sizes):
            whole = [out] if len(todo) == 1 else [t.contiguous() for t in torch.split(out, sizes, 1)]
            for p, t in zip(todo, whole, strict=True):
                p.tensor = (p.moved(t) if type(p) is Joined else t).to(p.dtype)  # type: ignore[misc]
            return
        pieces = torch.split(out, [v.shape[1] for v in values], 1) if isinstance(out, Tensor) else out
        for value, t in zip(values, pieces, strict=True):
            value.tensor = t.contiguous().to(value.dtype)
        for p in todo:
            if type(p) is Joined:
                p.tensor = p.moved(torch.cat([part.tensor for part in p.parts], 1))  # type: ignore[misc]

    def _dtype(self, recipe: Recipe, x: Tensor | Value) -> torch.dtype:
        """Of a candidate's result under autocast, which convolutions follow."""
        if isinstance(x, Tensor):
            self._device = x.device
        if not recipe.convolves or x.dtype == torch.float64:
            return x.dtype
        return self._half.get(self._device.type, x.dtype)

    def _own_mode(self) -> AbstractContextManager[Any]:
        """The grad and autocast modes in which the values were promised."""
        stack = ExitStack()
        if not self.open():
            grad, *autocast = self.mode
            if grad and not torch.is_inference_mode_enabled() and not torch.is_grad_enabled():
                stack.enter_context(torch.enable_grad())
            if not grad:
                stack.enter_context(torch.no_grad())
            for device, enabled in zip(("cpu", "cuda"), autocast, strict=False):
                stack.enter_context(torch.autocast(device, enabled=enabled))
        return stack


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
