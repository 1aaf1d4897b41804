"""What the promises of a region's call read: tensors, and the weights that its code multiplied candidates with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from fastnas import _C
from fastnas._C import CONSTANT
from fastnas.swap.calls import tensors
from fastnas.swap.promise import Value

Place = tuple[int, int]
"""The number of a tensor and of one of its elements; `CONSTANT` and the number of a constant."""
ONE: Place = (CONSTANT, 0)


class Tape(_C.Tape):
    """One call of a region, with `arguments`: what its code does with candidates, and what that reads.

    csrc/swap does what happens for every candidate, and asks here for the rest. Values, calls, tensors and constants
    are numbered in the order in which they are met, so that calls of the region that are alike number them alike.

    Args:
        alone: numbers of the values that are computed as soon as they are promised.
        kinds: of what has been met, numbers by which histories tell it.
    """

    def __init__(self, arguments: Any, alone: set[int], kinds: dict[Any, int]) -> None:
        super().__init__(Value, Tensor, _modes(), alone, kinds)
        self._arguments = arguments
        self._versions: list[tuple[Tensor, int]] = []
        self._slices: dict[Any, Tensor] = {}

    def changed(self) -> bool:
        """Whether any of the tensors that are read has been changed in place."""
        return any(t._version != version for t, version in self._versions)

    def clear(self) -> None:
        """Forgets calls and tensors, which refer to each other and would wait for the garbage collector."""
        super().clear()
        self._slices.clear()

    def _first(self, t: Tensor) -> Any:
        """What a tensor is that is read for the first time, as far as operators depend on it."""
        if not t.is_inference():
            self._versions.append((t, t._version))
        return t.shape, t.dtype, t.device

    def _given(self) -> list[Tensor]:
        """The tensors of which weights may be elements.

        Reading α as a whole saves taking it to pieces and putting these together again, and tells where the same
        entry comes twice.
        """
        return tensors(self._arguments)

    def _same(self, t: Tensor) -> Tensor:
        """The first of the slices that are alike: code may cut a tensor anew for every candidate."""
        what = _slice(t)
        return t if what is None else self._slices.setdefault(what, t)

    def _promoted(self, a: torch.dtype, b: torch.dtype) -> torch.dtype:
        return torch.promote_types(a, b)


def _slice(t: Tensor) -> Any:
    """Equal for slices of the same, whose gradients go the same way; None of what is none, or is watched itself."""
    if t._base is None:
        return None
    way = None
    if t.requires_grad:
        cut, _ = _past_whole_dimensions((t.grad_fn, 0))
        if type(cut).__name__ != "SliceBackward0" or t.retains_grad or t._backward_hooks:
            return None
        way = _past_whole_dimensions(cut.next_functions[0])
    return id(t._base), way, t.storage_offset(), t.shape, t.stride(), t.dtype


def _past_whole_dimensions(way: tuple[Any, int]) -> tuple[Any, int]:
    """Where a gradient goes on after slices of nothing: older PyTorch makes one for every `:` of an index."""
    node = way[0]
    while type(node).__name__ == "SliceBackward0" and node._saved_start == 0 and node._saved_step == 1:
        if node._saved_end < node._saved_self_sym_sizes[node._saved_dim]:
            break
        way = node.next_functions[0]
        node = way[0]
    return way


@cache
def _modes() -> tuple[Callable[[], bool], ...]:
    """Whether gradients, autocast on the CPU and, where there is one, on a GPU are on."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return torch.is_grad_enabled, *(partial(torch.is_autocast_enabled, device) for device in devices)
