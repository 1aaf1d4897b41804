"""Measures what a module's forward and backward cost, and leaves the module as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from fastnas.measure import peak, saved_for_backward
from fastnas.swap.calls import Arguments, untouched, writable
from fastnas.swap.report import Cost

_RUNS = 2


def cost(module: nn.Module, arguments: Arguments, with_peak: bool = False) -> Cost:
    """Time, saved and peak memory of a step; gradients, buffers and random generators stay as they were."""
    args, kwargs = tree_map(_differentiable, (arguments.args, arguments.kwargs))
    inputs = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor) and leaf.requires_grad]
    weights = [p for p in module.parameters() if p.requires_grad]

    def forward() -> Any:
        own_args, own_kwargs = tree_map(writable, (args, kwargs))
        return module(*own_args, **own_kwargs)

    def step() -> None:
        results = [t for t in tree_flatten(forward())[0] if isinstance(t, Tensor) and t.requires_grad]
        if results:
            seeds = [torch.ones_like(t) for t in results]
            torch.autograd.grad(results, [*inputs, *weights], seeds, allow_unused=True)

    with untouched(module), torch.enable_grad():
        seconds = min(_timed(step) for _ in range(_RUNS))
        known = [*inputs, *module.parameters(), *module.buffers()]
        saved = _or_none(lambda: saved_for_backward(forward, known).storages)
        return Cost(seconds, saved, _or_none(lambda: peak(step)) if with_peak else None)


def _differentiable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().requires_grad_()
    return leaf


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _or_none(measure: Callable[[], int]) -> int | None:
    try:
        return measure()
    except OSError:  # this system does not tell
        return None
