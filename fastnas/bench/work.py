"""How much arithmetic a cell and a search network ask for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fastnas.nn import Cell, DartsSupernet
from fastnas.ops import Spec
from fastnas.ops.candidates import Depthwise

# A product's two derivatives cost what the product does: backward has twice the multiply-adds of forward.
FORWARD_AND_BACKWARD = 3


def cell_multiply_adds(spec: Spec, inputs: Sequence[tuple[int, int]]) -> int:
    """Multiply-adds of the convolutions of one image's forward.

    Args:
        spec: the cell.
        inputs: height and width of every input.
    """
    areas = [height * width for height, width in spec.sizes(inputs)]
    total = 0
    for edge, _, kind in spec.walk():
        before, after = spec.channels[edge.source], spec.channels[edge.target]
        for stage in kind.stages:
            depthwise = stage.kernel**2 * before if isinstance(stage, Depthwise) else 0
            # The two halves of a factorised reduce have half of the output channels each.
            total += (depthwise + before * after) * areas[edge.target]
            before = after
    return total


def network_multiply_adds(network: DartsSupernet, size: tuple[int, int]) -> int:
    """Multiply-adds of one image's forward through stem, cells and classifier; `size` is its height and width."""
    stem = next(module for module in network.stem if isinstance(module, nn.Conv2d))
    total = stem.weight.numel() * size[0] * size[1] + network.classifier.weight.numel()
    before_previous = previous = size
    for cell in network.cells:
        assert isinstance(cell, Cell)
        spec = cell.spec
        inputs = [before_previous, previous]
        total += cell_multiply_adds(spec, inputs)
        before_previous, previous = previous, spec.sizes(inputs)[spec.outputs[0]]
    return total
