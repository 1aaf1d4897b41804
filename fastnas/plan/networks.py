"""The networks that can be planned, described: one real cell for all cells that are alike, nothing else computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import AutoDeepLabSupernet, DartsSupernet
from fastnas.nn.mixed import Cell
from fastnas.nn.trellis import TrellisCell
from fastnas.plan.cells import PlannedCell


@dataclass(frozen=True)
class Darts:
    """The DARTS supernet; see `fastnas.nn.DartsSupernet`. It classifies images."""

    channels: int = 16
    layers: int = 8
    num_classes: int = 10
    in_channels: int = 3

    def described(self) -> Described:
        return _described(_Darts, self)

    def batch(self, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step, on the meta device."""
        return _images(self.in_channels, images, height, width), _labels(images)


@dataclass(frozen=True)
class AutoDeepLab:
    """The Auto-DeepLab supernet; see `fastnas.nn.AutoDeepLabSupernet`. It classifies pixels."""

    filters: int = 8
    steps: int = 5
    layers: int = 12
    num_classes: int = 19
    in_channels: int = 3

    def described(self) -> Described:
        return _described(_AutoDeepLab, self)

    def batch(self, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a step, on the meta device."""
        return _images(self.in_channels, images, height, width), _labels(images, height, width)


Network = Darts | AutoDeepLab


@dataclass(frozen=True)
class Described:
    """A network on the meta device.

    Attributes:
        module: its cells compute nothing.
        cells: what they compute it with.
        weights, alphas, buffers: bytes.
    """

    module: nn.Module
    cells: list[PlannedCell]
    weights: int
    alphas: int
    buffers: int

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross entropy, as in a search."""
        images, labels = batch
        return F.cross_entropy(self.module(images), labels)


class _Darts(DartsSupernet):
    cell_type = staticmethod(lambda *args, **how: _cell(Cell, *args))


class _AutoDeepLab(AutoDeepLabSupernet):
    cell_type = staticmethod(lambda *args, **how: _cell(TrellisCell, *args))


def _described(kind: type[_Darts | _AutoDeepLab], network: Network) -> Described:
    with torch.device("meta"):
        module = kind(**vars(network))
    cells = [cell._fused for cell in module.cells]
    modules = [part for name, part in module.named_children() if name != "cells"]
    alphas = sum(map(_bytes, module.arch_parameters()))
    weights = sum(_bytes(p) for part in modules for p in part.parameters())
    buffers = sum(_bytes(b) for part in modules for b in part.buffers())
    return Described(
        module,
        cells,
        weights + sum(_bytes(cell.weights) for cell in cells),
        alphas,
        buffers + sum(_bytes(b) for cell in module.cells for b in cell.buffers()),
    )


def _cell(kind: Callable[..., Any], *args: Any) -> nn.Module:
    """A cell that shares all but its weights with those of the same arguments."""
    cell = copy.copy(_made(kind, *map(_hashable, args)))
    cell._fused = PlannedCell(cell.spec)
    return cell


@cache
def _made(kind: Callable[..., nn.Module], *args: Hashable) -> Any:
    with torch.device("cpu"):
        return kind(*args).to("meta")


def _hashable(arg: Any) -> Hashable:
    return tuple(arg) if isinstance(arg, Sequence) else arg


def _images(*shape: int) -> Tensor:
    channels, images, height, width = shape
    return torch.empty(images, channels, height, width, device="meta")


def _labels(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


def _bytes(t: Tensor) -> int:
    return t.numel() * t.element_size()
