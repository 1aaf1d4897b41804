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
from fastnas.swap.build import Plan

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


class _PublishedShuffle(foreign.PartialChannels):
    """PC-DARTS as published: the shuffle asks `data` for sizes and transposes by a function."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        part = x.shape[1] // 4
        mixed = sum(w * op(x[:, :part]) for w, op in zip(weights, self._ops, strict=True))
        out = torch.cat([mixed, x[:, part:]], dim=1)
        n, c, h, w = out.data.size()
        out = torch.transpose(out.view(n, 4, c // 4, h, w), 1, 2).contiguous()
        return out.view(n, -1, h, w)


class _PermutedShuffle(foreign.PartialChannels):
    """The same, otherwise written."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        part = x.shape[1] // 4
        mixed = sum(w * op(x[:, :part]) for w, op in zip(weights, self._ops, strict=True))
        out = torch.cat([mixed, x[:, part:]], dim=1)
        n, c, h, w = out.shape
        return torch.reshape(out, (n, 4, c // 4, h, w)).permute(0, 2, 1, -2, 4).reshape([n, c, h, w])


class _Node(nn.Module):
    """A node of two edges, which are asked where they are."""

    def __init__(self, edge: type[nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleList([edge(), edge()])

    def forward(self, x: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        mixed = [edge(x, row) for edge, row in zip(self.edges, rows, strict=True)]
        return sum(w.to(m.device) * m for w, m in zip(weights, mixed, strict=True) if not m.is_cuda)


@pytest.mark.parametrize("edge", [foreign.PartialChannels, _PublishedShuffle, _PermutedShuffle])
def test_a_shuffle_of_channels_is_waited_for_however_it_is_written(edge: type[nn.Module]) -> None:
    theirs = _Around(_Node(edge)).double()
    ours, inputs = copy.deepcopy(theirs), (x(4 * C), rows(2), weights(2))
    assert fastnas.accelerate(ours, example_inputs=inputs, strict=True).fused
    assert_same(ours, theirs, inputs)
    assert operators(ours.module, inputs) == [2 + 1]  # of the node: edges, and what passes


class _Detaching(stock.MixedOp):
    """Uses and returns `data`."""

    def forward(self, x: Tensor, weights: Tensor) -> tuple[Any, ...]:
        mixed = super().forward(x, weights)
        moved = torch.stack([mixed.data, 1 + mixed.data * 2, -mixed.data])
        return mixed, mixed.data, moved, mixed.data.mean(), (mixed.data.dtype, mixed.data.dim(), mixed.data.shape[1])


def test_what_is_done_with_data_of_a_result_needs_no_gradient() -> None:
    theirs = _Detaching(C, 1).double()
    ours, inputs = copy.deepcopy(theirs), (x(), weights())
    assert fastnas.accelerate(ours, example_inputs=inputs, strict=True).fused
    assert_same(ours, theirs, inputs)
    found = ours(*inputs)
    assert [type(t) for t in found[:4]] == [Tensor] * 4
    assert [t.requires_grad for t in found[:4]] == [True, False, False, False]
    assert found[4] == (torch.float64, 4, C)


class _Pruned(nn.Module):
    """A node of an edge of eight candidates and one of a skip connection alone."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.ModuleList([stock.MixedOp(C, 1), stock.MixedOp(C, 1)])
        self.edges[1]._ops = nn.ModuleList([nn.Identity()])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out: Tensor = self.edges[0](x, weights) + self.edges[1](x, weights[:1])
        return out


def test_an_edge_of_a_skip_connection_alone_is_a_part_of_what_is_around_it() -> None:
    report = fastnas.accelerate(_Around(_Pruned()), example_inputs=(x().float(), weights().float()), strict=True)
    assert [(e.kind, e.candidates) for e in report.fused] == [("_Pruned", 9)]


class _StackedMix(stock.MixedOp):
    """NNI's: candidates' results are stacked, multiplied with weights of five dimensions, and summed."""

    how = "method"

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        stacked = torch.stack([op(x) for op in self._ops])
        shape = [-1] + [1] * (stacked.dim() - 1)
        if self.how == "method":
            return (stacked * weights.view(shape)).sum(0)
        if self.how == "function":
            return torch.sum(torch.mul(weights.view(*shape), stacked), dim=0)
        if self.how == "one weight":
            return torch.sum(weights[0] * stacked, dim=[0])
        return (stacked * torch.cat([weights, weights[:0]]).view(shape)).sum(0, keepdim=True)[0] + stacked.mean(0)


@pytest.mark.parametrize("how", ["method", "function", "one weight", "otherwise"])
def test_stacked_results_are_one_operator(how: str) -> None:
    theirs = _Around(_StackedMix(C, 1)).double()
    theirs.module.how = how
    ours, inputs = copy.deepcopy(theirs), (x(), weights())
    assert fastnas.accelerate(ours, example_inputs=inputs, strict=True).fused
    assert_same(ours, theirs, inputs)
    assert how == "otherwise" or operators(ours.module, inputs) == [1]


class _DroppedSkips(stock.Cell):
    """P-DARTS: dropout after skip connections."""

    def __init__(self) -> None:
        super().__init__(C, C, C, False, False, nodes=3)
        for edge in self._ops:
            edge._ops[3] = nn.Sequential(nn.Identity(), nn.Dropout(0.3))


def test_a_skip_connection_that_is_looked_at_is_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised of it is not computed by an operator of its own, beside the one of its input."""
    theirs = _Around(_DroppedSkips()).double()
    ours, inputs = copy.deepcopy(theirs), (x(), x(), rows(9))
    assert fastnas.accelerate(ours, example_inputs=inputs, strict=True).fused
    computed: list[Plan] = []
    compute = Plan.compute
    monkeypatch.setattr(Plan, "compute", lambda self, run: (computed.append(self), compute(self, run))[1])
    for _ in range(3):
        computed.clear()
        assert_same(ours, theirs, inputs)
        assert len(computed) <= 2 + 3, "the inputs' preprocessing, and nodes"


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
