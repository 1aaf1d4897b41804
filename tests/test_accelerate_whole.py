"""How much of a region one operator computes, and that it keeps dtypes and the order of running statistics."""

from __future__ import annotations

import copy
from typing import Any

import foreign
import pytest
import stock
import torch
from foreign import SIZE, C
from swapped import assert_same, rows, weights, x
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fastnas

pytestmark = pytest.mark.usefixtures("one_thread", "unmeasured")


def operators(module: nn.Module, inputs: tuple[Any, ...]) -> list[int]:
    """Mixed edges of every operator that a call of an accelerated module runs."""
    module(*inputs)
    cells = [cell for cell, _ in module.__dict__["_fastnas"].cells.values() if cell is not None]
    return [sum(edge.searched for edge in cell.spec.edges) for cell in cells]


def test_the_three_ways_of_a_trellis_cell_are_one_operator_with_shared_edges() -> None:
    module = foreign.TrellisCell().double()
    inputs = (x(12), x(6, 2 * SIZE), x(12), x(24, SIZE // 2), rows(5))
    assert fastnas.accelerate(module, example_inputs=inputs, strict=True).fused
    assert operators(module, inputs) == [2 + 3 * 3]  # the edges from prev-prev are the same on every way


def test_a_node_of_pc_darts_is_one_operator() -> None:
    module = foreign.PCCell().double()
    assert fastnas.accelerate(module).fused
    found = operators(module, (x(12), x(12), rows(5), weights(5)))
    assert sorted(found) == [0, 0, 2 + 2, 3 + 3]  # of nodes: edges, and what passes


def test_an_edge_used_twice_shares_its_weights_in_one_operator() -> None:
    module, inputs = foreign.SharedWeights().double(), (x(), weights())
    whole = _Around(module)
    assert fastnas.accelerate(whole, example_inputs=inputs, strict=True).fused
    assert operators(module, inputs) == [2]


class _Around(nn.Module):
    """A model is never one operator, what it holds may be."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


class _OutOfOrder(nn.Module):
    """The second node's candidates run before the first's, which have the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = stock.MixedOp(C, 1)

    def forward(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        late, early = self.edge(2 * y, weights), self.edge(x, weights)
        return torch.cat([early, late], 1)


def test_running_statistics_keep_the_order_of_the_calls() -> None:
    theirs = _Around(_OutOfOrder()).double()
    ours = copy.deepcopy(theirs)
    inputs = x(), x(), weights()
    assert fastnas.accelerate(ours, example_inputs=inputs, strict=True).fused
    for _ in range(2):
        assert_same(ours, theirs, inputs)


def test_a_checkpoint_moves_running_statistics_as_often_as_before() -> None:
    theirs = stock.MixedOp(C, 1).double()
    ours = copy.deepcopy(theirs)
    fastnas.accelerate(ours, strict=True)
    given = x(), weights()
    for module in (ours, theirs):
        checkpoint(module, *given, use_reentrant=False).square().sum().backward()
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1, 1, 1, 1)])
def test_autocast_returns_the_dtype_that_it_did(given: torch.dtype, shape: tuple[int, ...]) -> None:
    theirs = stock.MixedOp(C, 1)
    ours = copy.deepcopy(theirs)
    fastnas.accelerate(ours, strict=True)
    weights = [w.reshape(shape) for w in torch.rand(8)]
    for chosen in (slice(4), slice(4, 8), slice(8)):  # without convolutions, with them alone, all
        image = torch.randn(2, C, SIZE, SIZE).to(given)
        parts = [nn.ModuleList(list(module._ops)[chosen]) for module in (ours, theirs)]
        with torch.autocast("cpu", torch.bfloat16):
            results = [_part(m, p, image, weights[chosen]) for m, p in zip((ours, theirs), parts, strict=True)]
        assert results[0].dtype == results[1].dtype
        torch.testing.assert_close(*results, rtol=0.05, atol=0.05)


def _part(module: nn.Module, candidates: nn.ModuleList, image: Tensor, weights: list[Tensor]) -> Tensor:
    whole, module._ops = module._ops, candidates
    try:
        out: Tensor = module(image, weights)
        return out
    finally:
        module._ops = whole
