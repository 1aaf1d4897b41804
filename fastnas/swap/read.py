"""What the promises of a region's call read: tensors, and the weights that its code multiplied candidates with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastnas.swap.calls import tensors
from fastnas.swap.promise import Weight

CONSTANT = -1
Place = tuple[int, int]
"""The number of a tensor and of one of its elements; `CONSTANT` and the number of a constant."""
ONE: Place = (CONSTANT, 0)


class Read:
    """Numbers tensors and constants in the order in which they are met, so that calls alike number them alike.

    Args:
        arguments: of the region's call.
        history: of the run; says of every new tensor what it is.

    Attributes:
        tensors, constants: by number; equal constants have the same.
    """

    def __init__(self, arguments: Any, history: list[Any]) -> None:
        self.tensors: list[Tensor] = []
        self.constants: dict[float, int] = {1.0: 0}
        self._arguments, self._history = arguments, history
        self._numbers: dict[int, int] = {}
        self._versions: list[tuple[Tensor, int]] = []
        self._given: dict[int, Tensor] | None = None
        self._elements: dict[int, list[_Elements]] = {}
        self._slices: dict[Any, Tensor] = {}

    def same(self, t: Tensor) -> Tensor:
        """The first of the slices that are alike: code may cut a tensor anew for every candidate."""
        what = _slice(t)
        return t if what is None else self._slices.setdefault(what, t)

    def number(self, t: Tensor) -> int:
        """Of a tensor that a promise reads."""
        number = self._numbers.get(id(t))
        if number is None:
            number = self._numbers[id(t)] = len(self.tensors)
            self.tensors.append(t)
            self._history.append((t.shape, t.dtype, t.device))
            if not t.is_inference():
                self._versions.append((t, t._version))
        return number

    def place(self, weight: Weight) -> Place:
        """Where a weight is: as a rule it is a view of a tensor of the region's arguments, or made inside it.

        Reading α as a whole saves taking it to pieces and putting these together again, and tells where the same
        entry comes twice.
        """
        if not isinstance(weight, Tensor):
            return CONSTANT, self.constants.setdefault(weight, len(self.constants))
        base = weight._base
        needs = weight.requires_grad
        if base is None or (needs and weight.is_leaf):
            return self.number(weight), 0
        if self._given is None:
            self._given = {id(t): t for t in tensors(self._arguments)}
        if id(weight) in self._given:
            return self.number(weight), 0
        known = self._elements.get(id(base))
        if known is None:
            given = [t for t in self._given.values() if t is base or t._base is base]
            known = self._elements[id(base)] = [_Elements(self.number(t), t) for t in (*given, base)]
        offset: Any = weight.storage_offset()
        dtype = weight.dtype
        for elements in known:
            at = offset - elements.offset
            if 0 <= at < elements.count and elements.requires_grad is needs and elements.dtype is dtype:
                return elements.number, at
        return self.number(weight), 0

    def changed(self) -> bool:
        """Whether any of the tensors has been changed in place."""
        return any(t._version != version for t, version in self._versions)

    def clear(self) -> None:
        """Forgets the numbers."""
        self.tensors.clear()
        self._numbers.clear()
        self._elements.clear()
        self._slices.clear()
        self._given = None


class _Elements:
    """A tensor of which weights may be elements; of none if it is not contiguous."""

    def __init__(self, number: int, t: Tensor) -> None:
        self.number, self.offset = number, int(t.storage_offset())
        self.count = t.numel() if t.is_contiguous() else 0
        self.requires_grad, self.dtype = t.requires_grad, t.dtype


def _slice(t: Tensor) -> Any:
    """Equal for slices of the same, whose gradients go the same way; None of what is none, or is watched itself."""
    if t._base is None:
        return None
    way = None
    if t.requires_grad:
        if type(t.grad_fn).__name__ != "SliceBackward0" or t.retains_grad or t._backward_hooks:
            return None
        way = t.grad_fn.next_functions[0]  # type: ignore[union-attr]
    return id(t._base), way, t.storage_offset(), t.shape, t.stride(), t.dtype
