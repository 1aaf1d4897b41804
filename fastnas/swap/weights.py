"""The operator's α, from the weights that a region's code multiplied its candidates with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastnas.swap.lazy import Run
from fastnas.swap.promise import Weight

Place = tuple[Tensor, int] | float
Factors = tuple[Place, ...]


def places(run: Run, weights: tuple[Weight, ...]) -> Factors:
    """Where the entries are whose product is a candidate's weight."""
    return tuple([run.place(w) if isinstance(w, Tensor) else w for w in weights])


def key(factors: Factors) -> Any:
    """Alike for products of the same entries of the same tensors."""
    return tuple([(id(f[0]), f[1]) if isinstance(f, tuple) else f for f in factors])


def alpha(run: Run, entries: Sequence[Factors], like: Tensor) -> Tensor:
    """(len(entries),), the products of each one's factors, 1 where there are none."""
    if not entries:
        return like.new_empty(0)
    columns = max(1, *map(len, entries))
    product: Tensor | None = None
    for i in range(columns):
        column = _gathered(run, [entry[i] if i < len(entry) else 1.0 for entry in entries], like)
        product = column if product is None else product * column
    assert product is not None
    return product


def _gathered(run: Run, entries: Sequence[Place], like: Tensor) -> Tensor:
    """Entries of several tensors, as one tensor of the dtype and device of `like`."""
    sources: dict[int, Tensor] = {}
    constants: list[float] = []
    for entry in entries:
        if isinstance(entry, tuple):
            sources[id(entry[0])] = entry[0]
        else:
            constants.append(entry)
    starts, total = {}, 0
    for number, t in sources.items():
        starts[number] = total
        total += t.numel()
    fixed = iter(range(total, total + len(constants)))
    order = tuple([starts[id(e[0])] + e[1] if isinstance(e, tuple) else next(fixed) for e in entries])
    flat = [t.reshape(-1).to(like.device, like.dtype) for t in sources.values()]
    if constants:
        flat.append(torch.tensor(constants, dtype=like.dtype, device=like.device))
    whole = flat[0] if len(flat) == 1 else torch.cat(flat)
    if order == tuple(range(len(whole))):
        return whole
    index = (order, like.device)
    if index not in run.home.orders:
        run.home.orders[index] = torch.tensor(order, device=like.device)
    return whole.index_select(0, run.home.orders[index])
