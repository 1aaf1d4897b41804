"""Measures what a module's forward and backward cost, and leaves the module as it was."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fastnas.errors import UserError
from fastnas.measure import Saving, peak
from fastnas.ops import release_workspaces
from fastnas.swap.calls import Arguments, tensors, untouched, writable
from fastnas.swap.lazy import allowed, as_written
from fastnas.swap.part import Part, now
from fastnas.swap.report import Cost
from fastnas.swap.trace import generators

_ENOUGH = 0.15  # seconds after which nothing more is timed
_RUNS = 7  # at most
_SLOWER = 1.05  # times: less may be chance


def cost(module: nn.Module, arguments: Arguments, with_peak: bool = False) -> Cost:
    """Time, saved and peak memory of a step; gradients, buffers and random generators stay as they were."""
    whole, _ = costs(module, arguments, (), with_peak)
    return whole


def costs(
    module: nn.Module, arguments: Arguments, parts: Iterable[nn.Module], with_peak: bool = False
) -> tuple[Cost, dict[nn.Module, Cost]]:
    """Of a module's step, and of the parts of it for which its steps tell them, without a peak.

    Raises:
        UserError: the backward fails.
    """
    step, saving, times = _Step(module, arguments), Saving(), list[float]()
    watched = [Part(part, saving) for part in parts]
    saved = 0

    def run() -> None:
        nonlocal saved
        saved = step.saved(saving)  # memory is there for the timed steps, as it is in a training loop
        while not times or (sum(times) < _ENOUGH and len(times) < _RUNS):
            times.append(_timed(step))

    with untouched(module), torch.enable_grad(), ExitStack() as stack:
        _load_autograd()
        if allowed():
            step()  # on the operator a region's first call is not like those that follow
        for part in watched:
            stack.enter_context(part.watched())
        highest = _peak(run, step.device) if with_peak else None
        if not times:
            run()
    told = {part.module: found for part in watched if (found := part.cost(len(times))) is not None}
    return Cost(min(times), saved, highest), told


def slower(module: nn.Module, arguments: Arguments) -> str | None:
    """How much slower a step is on the operator than as the module was written; None if it is not.

    Both take turns. Code that samples candidates draws others in each turn, and the same for both.
    """
    step = _Step(module, arguments)
    turns = []
    with untouched(module), torch.enable_grad():
        for seed in range(_RUNS):
            with generators(seed), as_written():
                before = _timed(step)
            with generators(seed):
                turns.append((before, _timed(step)))
    before, after = sorted(turns, key=lambda turn: turn[1] / turn[0])[_RUNS // 2]
    if after <= _SLOWER * before:
        return None
    return f"{before * 1e3:.2f} ms a step as it was written, {after * 1e3:.2f} ms on the operator"


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
        device: where it runs.
    """

    def __init__(self, module: nn.Module, arguments: Arguments) -> None:
        self._module = module
        self._given = tree_map(_differentiable, (arguments.args, arguments.kwargs))
        inputs = [leaf for leaf in tensors(self._given) if leaf.requires_grad]
        self._leaves = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
        self.device = self._leaves[0].device if self._leaves else torch.device("cpu")

    def saved(self, saving: Saving) -> int:
        """Bytes that its forward saves, by the account of `saving`."""
        args, kwargs = tree_map(writable, self._given)
        with saving:
            result = self._module(*args, **kwargs)
        gc.collect()
        known = [*tensors((self._given, args, kwargs)), *self._module.parameters(), *self._module.buffers()]
        saved = saving.storages(known)
        del result
        return saved

    def __call__(self) -> None:
        args, kwargs = tree_map(writable, self._given)
        results = [t for t in tensors(self._module(*args, **kwargs)) if t.requires_grad]
        if not results:
            return
        try:
            torch.autograd.grad(results, self._leaves, [torch.ones_like(t) for t in results], allow_unused=True)
        except RuntimeError as error:  # as of a checkpoint with use_reentrant=True
            raise UserError(f"the backward on example_inputs fails, so that no time is measured: {error}") from error


def _differentiable(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().requires_grad_()
    return leaf


def _load_autograd() -> None:
    """A process's first gradient imports some 500 modules, which takes a second."""
    x = torch.zeros((), requires_grad=True)
    torch.autograd.grad([x * 1], [x], [torch.ones_like(x)], allow_unused=True)


def _timed(step: Callable[[], Any]) -> float:
    start = now()
    step()
    return now() - start


def _peak(run: Callable[[], None], device: torch.device) -> int | None:
    """With what the operator's pool would keep from earlier calls; None, and nothing has run, if the system tells none.

    What a GPU's memory held is counted by PyTorch's allocator, without what it keeps for later.
    """
    release_workspaces()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        return peak(run)
    except OSError:
        return None
