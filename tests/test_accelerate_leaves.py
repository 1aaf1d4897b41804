"""`fastnas.accelerate` on candidates of every kind that the operator takes."""

from __future__ import annotations

from typing import Any

import foreign
import pytest
import torch
from foreign import C, Spoilt, chain
from swapped import assert_same, pair, weights, x
from torch import Tensor, nn

import fastnas

NORMS = {
    "momentum": {"momentum": 0.37},
    "cumulative": {"momentum": None},
    "eps": {"eps": 0.2},
    "untracked": {"track_running_stats": False},
}


@pytest.mark.parametrize("how", NORMS.values(), ids=NORMS.keys())
def test_norms_of_every_kind(how: dict[str, Any]) -> None:
    theirs, ours = pair(Spoilt(chain(norm=lambda c: nn.BatchNorm2d(c, affine=True, **how))))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.candidates for e in report.fused] == [8]
    for _ in range(2):
        assert_same(ours, theirs, (x(), weights()))
    assert_same(ours.eval(), theirs.eval(), (x(), weights()))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_separable_convolutions_that_are_not_applied_twice(kernel: int, stride: int) -> None:
    theirs, ours = pair(Spoilt(chain(kernel_size=kernel, padding=kernel // 2, dilation=1, stride=stride), stride))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.candidates for e in report.fused] == [8]
    assert_same(ours, theirs, (x(), weights()))


@pytest.mark.parametrize("stride", [1, 2])
def test_pools_without_batch_norm(stride: int) -> None:
    theirs, ours = pair(foreign.BarePools(stride=stride))
    report = fastnas.accelerate(ours)
    assert [e.candidates for e in report.fused] == [7], str(report)  # all but one of 7×7
    for module in (ours, theirs):
        module.eval().train()  # nor has a pool anything that could be put into eval mode
    assert_same(ours, theirs, (x(), weights()))
    assert_same(ours.eval(), theirs.eval(), (x(), weights()))
    given = x().float(), weights().float()  # its constants follow
    torch.testing.assert_close(ours.float()(*given), theirs.float()(*given), rtol=1e-5, atol=1e-5)


class PaddedReduce(nn.Module):
    """A factorised reduce for odd sizes, too: pads at the bottom and right, whether that is read or not."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.pad = nn.ConstantPad2d((0, 1, 0, 1), value)
        self.convs = nn.ModuleList(nn.Conv2d(C, C // 2, 1, stride=2, bias=False) for _ in range(2))
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        out: Tensor = self.bn(torch.cat([self.convs[0](x), self.convs[1](self.pad(x)[:, :, 1:, 1:])], 1))
        return out


class Halving(nn.Module):
    """An edge of two candidates."""

    def __init__(self, reduce: nn.Module) -> None:
        super().__init__()
        self.ops = nn.ModuleList([reduce, chain(stride=2)])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self.ops, strict=True))


@pytest.mark.parametrize("size", [7, 8])
def test_a_factorised_reduce_that_pads(size: int) -> None:
    theirs, ours = pair(Halving(PaddedReduce()))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.candidates for e in report.fused] == [2]
    assert_same(ours, theirs, (x(size=size), weights(2)))


def test_a_factorised_reduce_that_pads_with_ones_is_left() -> None:
    report = fastnas.accelerate(Halving(PaddedReduce(1.0)))
    assert [e.reason for e in report.left if e.name == "ops.0"] == ["its factorised reduce reads aten.constant_pad_nd"]


def test_a_pool_beside_no_candidate_is_none() -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.edge = nn.MaxPool2d(3, 2, 1), foreign.SoftmaxInside()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.edge(self.pool(x))
            return out

    theirs, ours = pair(Stem())
    report = fastnas.accelerate(ours, strict=True)
    assert [(e.name, e.candidates) for e in report.fused] == [("edge", 8)]
    assert_same(ours, theirs, (x(),))
    assert "it holds no candidate operation" in str(fastnas.accelerate(nn.Sequential(nn.MaxPool2d(3, 2, 1))))


def test_norms_over_all_processes_are_left() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(Spoilt(chain()))
    kinds = [type(module) for module in model.modules()]
    report = fastnas.accelerate(model)
    assert not report.fused
    assert [type(module) for module in model.modules()] == kinds
    reasons = {entry.name: entry.reason for entry in report.left if entry.name}
    assert reasons
    for reason in reasons.values():
        assert reason == "its SyncBatchNorm takes statistics over all processes, the operator over its own batch"
