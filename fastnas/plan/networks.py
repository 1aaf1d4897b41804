"""Networks that are described rather than built: one real cell serves all that are alike, and computes nothing.

So does one real edge, of which a cell has twenty.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import AutoDeepLabSupernet, DartsSupernet
from fastnas.nn.mixed import Cell, MixedOp
from fastnas.nn.trellis import TrellisCell
from fastnas.plan.cells import PlannedCell


class Described:
    """A search network on the meta device, but for α and β.

    Args:
        kind: "darts", which classifies images, or "auto-deeplab", which classifies pixels.
        sizes: arguments of `fastnas.nn.DartsSupernet` or `fastnas.nn.AutoDeepLabSupernet`.

    Attributes:
        cells: what its cells are run by.
        weights, alphas, buffers: bytes.

    Raises:
        ValueError: see the network.
    """

    def __init__(self, kind: str, **sizes: int) -> None:
        self._pixels = kind == "auto-deeplab"
        self._module: _Darts | _AutoDeepLab = (_AutoDeepLab if self._pixels else _Darts)(**sizes)  # type: ignore[arg-type]
        for module in self._others():
            module.to("meta")
        for p in self._module.parameters(recurse=False):  # a few bytes, whose gradients are a thousand operators
            p.requires_grad_(False)
        self._channels = sizes.get("in_channels", 3)
        self.cells: list[PlannedCell] = [cast("Any", cell)._fused for cell in self._module.cells]
        self.alphas = sum(p.nbytes for p in self._module.arch_parameters())
        self.weights = sum(p.nbytes for p in self._parameters()) - self.alphas
        self.buffers = sum(b.nbytes for module in self._others() for b in module.buffers())
        self.buffers += sum(cell.buffers for cell in self.cells)

    def batch(self, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step."""
        labels = (images, height, width) if self._pixels else (images,)
        return (
            torch.empty(images, self._channels, height, width, device="meta"),
            torch.empty(labels, dtype=torch.int64, device="meta"),
        )

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy, as in a search."""
        images, labels = batch
        return F.cross_entropy(self._module(images), labels)

    def clear_gradients(self) -> None:
        """As an optimiser does."""
        for p in self._parameters():
            p.grad = None

    def _others(self) -> list[nn.Module]:
        return [module for name, module in self._module.named_children() if name != "cells"]

    def _parameters(self) -> Iterator[nn.Parameter]:
        yield from self._module.arch_parameters()
        for module in self._others():
            yield from module.parameters()
        for cell in self.cells:
            yield cell.weights


_edge = cache(MixedOp)


class _Cell(Cell):
    edge_type = staticmethod(_edge)


class _TrellisCell(TrellisCell):
    def _edge(self, channels: int, candidates: tuple[str, ...], memory: str, backend: str) -> nn.Module:
        return _edge(channels, 1, candidates)


class _Darts(DartsSupernet):
    cell_type = staticmethod(lambda *args, **how: _cell(_Cell, *args))


class _AutoDeepLab(AutoDeepLabSupernet):
    cell_type = staticmethod(lambda *args, **how: _cell(_TrellisCell, *args))


def _cell(kind: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """A cell that shares with those of the same arguments all but what it is run by."""
    made, buffers = _made(kind, *(tuple(arg) if isinstance(arg, Sequence) else arg for arg in args))
    cell = copy.copy(made)
    cell._fused = PlannedCell(cell.spec, buffers)
    return cast("nn.Module", cell)


@cache
def _made(kind: Callable[..., nn.Module], *args: Hashable) -> tuple[Any, int]:
    cell = kind(*args)
    return cell, sum(b.nbytes for _, b in cell.named_buffers(remove_duplicate=False))
