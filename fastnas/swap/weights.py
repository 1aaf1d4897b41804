"""The operator's α, from the weights that a region's code multiplied its candidates with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnas._C import CONSTANT
from fastnas.swap.lazy import Run
from fastnas.swap.promise import Weight
from fastnas.swap.read import ONE, Place

Factors = tuple[Place, ...]
"""Where the entries are whose product is a candidate's weight."""


def places(run: Run, weights: tuple[Weight, ...]) -> Factors:
    """Of a candidate's weights."""
    return tuple(map(run.place, weights))


class Alpha:
    """(len(entries),), the products of each one's factors, 1 where there are none: for runs that number alike.

    Args:
        entries: by the numbers that `run` has given.
    """

    def __init__(self, run: Run, entries: Sequence[Factors]) -> None:
        columns = max(1, *map(len, entries)) if entries else 0
        self._columns = [_Column(run, [e[i] if i < len(e) else ONE for e in entries]) for i in range(columns)]

    def __call__(self, run: Run, like: Tensor) -> Tensor:
        """Of the dtype and device of `like`."""
        product: Tensor | None = None
        for column in self._columns:
            gathered = column.gathered(run, like)
            product = gathered if product is None else product * gathered
        return like.new_empty(0) if product is None else product


class _Column:
    """Entries of several tensors, and constants, as one tensor."""

    def __init__(self, run: Run, entries: Sequence[Place]) -> None:
        self._tensors = list(dict.fromkeys(number for number, _ in entries if number != CONSTANT))
        self._constants = [at for number, at in entries if number == CONSTANT]
        starts, total = {}, 0
        for number in self._tensors:
            starts[number] = total
            total += run.inputs[number].numel()
        fixed = iter(range(total, total + len(self._constants)))
        order = tuple([next(fixed) if number == CONSTANT else starts[number] + at for number, at in entries])
        self._order = None if order == tuple(range(total + len(self._constants))) else order

    def gathered(self, run: Run, like: Tensor) -> Tensor:
        """(len(entries),)."""
        flat = [run.inputs[number].reshape(-1).to(like.device, like.dtype) for number in self._tensors]
        if self._constants:
            values = list(run.constants)
            constants = [values[number] for number in self._constants]
            flat.append(torch.tensor(constants, dtype=like.dtype, device=like.device))
        whole = flat[0] if len(flat) == 1 else torch.cat(flat)
        if self._order is None:
            return whole
        index = (self._order, like.device)
        orders = run.home.orders
        if index not in orders:
            orders[index] = torch.tensor(self._order, device=like.device)
        return whole.index_select(0, orders[index])
