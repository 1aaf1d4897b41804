"""Measures what a module's forward and backward cost, and leaves the module as it was."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from fastnas.measure import peak, saved_for_backward
from fastnas.ops import release_workspaces
from fastnas.swap.calls import Arguments, untouched, writable
from fastnas.swap.lazy import as_written
from fastnas.swap.report import Cost

_ENOUGH = 0.3  # seconds after which nothing more is timed
_RUNS = 7  # at most
_SLOWER = 1.05  # times: less may be chance


def cost(module: nn.Module, arguments: Arguments, with_peak: bool = False) -> Cost:
    """Time, saved and peak memory of a step; gradients, buffers and random generators stay as they were."""
    step = _Step(module, arguments)
    with untouched(module), torch.enable_grad():
        highest = _or_none(lambda: _peak(step)) if with_peak else None
        times: list[float] = []
        saved = _or_none(lambda: _saved(step, times))
        while not times or (sum(times) < _ENOUGH and len(times) < _RUNS):
            times.append(_timed(step))
    return Cost(min(times), saved, highest)


def slower(module: nn.Module, arguments: Arguments) -> str | None:
    """How much slower a step is on the operator than as the module was written; None if it is not.

    Both take turns, and the shortest of their times count.
    """
    step = _Step(module, arguments)
    before, after = [], []
    with untouched(module), torch.enable_grad():
        for _ in range(_RUNS):
            with as_written():
                before.append(_timed(step))
            after.append(_timed(step))
    if min(after) <= _SLOWER * min(before):
        return None
    return f"{min(before) * 1e3:.2f} ms a step as it was written, {min(after) * 1e3:.2f} ms on the operator"


@contextmanager
def quick_collections() -> Iterator[None]:
    """Within it, looking for garbage, as before each measurement, does not walk over all that exists already."""
    if gc.get_freeze_count():  # somebody else's, which would be undone
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Step:
    """A forward and its backward.

    Attributes:
        known: tensors that exist anyway.
    """

    def __init__(self, module: nn.Module, arguments: Arguments) -> None:
        self._module = module
        self._given = tree_map(_differentiable, (arguments.args, arguments.kwargs))
        inputs = [leaf for leaf in tree_flatten(self._given)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]
        self._leaves = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
        self.known = [*inputs, *module.parameters(), *module.buffers()]

    def forward(self) -> Any:
        args, kwargs = tree_map(writable, self._given)
        return self._module(*args, **kwargs)

    def backward(self, result: Any) -> None:
        results = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor) and t.requires_grad]
        if results:
            torch.autograd.grad(results, self._leaves, [torch.ones_like(t) for t in results], allow_unused=True)

    def __call__(self) -> None:
        self.backward(self.forward())


def _differentiable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().requires_grad_()
    return leaf


def _timed(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _saved(step: _Step, times: list[float]) -> int:
    """What a forward saves. Adds the seconds that it and its backward take, the measurement between them left out."""
    results: list[Any] = []
    forward: list[float] = []

    def run() -> None:
        forward.append(_timed(lambda: results.append(step.forward())))

    saved = saved_for_backward(run, step.known).storages
    times.append(forward[0] + _timed(lambda: step.backward(results.pop())))
    return saved


def _peak(step: Callable[[], None]) -> int:
    """With what the operator's pool would keep from earlier calls."""
    release_workspaces()
    return peak(step)


def _or_none(measure: Callable[[], int]) -> int | None:
    try:
        return measure()
    except OSError:  # this system does not tell
        return None
