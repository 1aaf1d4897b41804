"""Measures a module within the steps of a model around it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fastnas.measure import Saving
from fastnas.swap.calls import tensors
from fastnas.swap.report import Cost


@dataclass
class _Call:
    """Seconds that its forward took; when its backward began and ended, if it did."""

    forward: float = 0.0
    begun: float | None = None
    ended: float | None = None

    def begin(self, _: Any) -> None:
        if self.begun is None:
            self.begun = now()

    def end(self, _: Any) -> None:
        if self.ended is None:
            self.ended = now()


class Part:
    """A module of a model: what its calls cost, and what the first of them saves by the account of `saving`.

    Autograd runs the nodes that were made last first. So those of a call run one after another, from the first of its
    results to the first of the nodes by which its arguments come in; these are made for the purpose.
    """

    def __init__(self, module: nn.Module, saving: Saving) -> None:
        self.module = module
        self._saving = saving
        self._calls: list[_Call] = []
        self._since = self._saved = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within it, the module's calls are noted."""
        handles = [
            self.module.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.module.register_forward_hook(self._leave, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def cost(self, steps: int) -> Cost | None:
        """Of a step of the model, of which there were so many after a forward.

        None if they do not tell: a step has no call or several, or its backward ends nowhere, because no argument needs
        a gradient or checkpoints run it apart.
        """
        timed = [
            call.forward + call.ended - call.begun
            for call in self._calls[1:]
            if call.begun is not None and call.ended is not None
        ]
        if len(timed) != steps or len(self._calls) != 1 + steps:
            return None
        return Cost(min(timed), self._saved)

    def _enter(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        call = _Call()
        aliases: dict[int, Tensor] = {}

        def alias(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.requires_grad:
                return leaf
            if id(leaf) not in aliases:
                aliases[id(leaf)] = other = leaf.view_as(leaf)
                if other.grad_fn is not None:
                    other.grad_fn.register_prehook(call.end)
            return aliases[id(leaf)]

        given = tree_map(alias, (args, kwargs))
        self._calls.append(call)
        self._since = self._saving.count
        call.forward = -now()
        return given

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        call = self._calls[-1]
        call.forward += now()
        if len(self._calls) == 1:
            known = [*tensors((args, kwargs)), *module.parameters(), *module.buffers()]
            self._saved = self._saving.storages(known, self._since)
        for t in tensors(result):
            if t.grad_fn is not None:
                t.grad_fn.register_prehook(call.begin)


def now() -> float:
    """In seconds, when all that a GPU was given to do is done."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()
