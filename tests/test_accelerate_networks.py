"""`fastnas.accelerate` on whole supernets in the styles of different people: what is fused, what is left and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import foreign
import foreign_networks
import pytest
import stock
import stock_trellis
import torch
from foreign import C
from swapped import assert_same, pair, rows, weights, x
from torch import nn

import fastnas
from fastnas.swap import modules, verify

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str | None]] = {
    "alphas outside": (foreign_networks.Darts, 3 * 42, None),
    "partial channels, weighted edges": (foreign_networks.PCDarts, 3 * 42, None),
    "several paths and scales": (foreign_networks.Trellis, 25 + 25 + 43 + 26, None),
    "no forward of a cell's own": (foreign_networks.NamedEdges, 2 * 6 * 8, None),
    "one candidate sampled": (lambda: foreign_networks.NamedEdges(sampled=True), 2 * 6 * 8, None),
    "biased convolutions": (lambda: foreign_networks.NamedEdges(bias=True), 2 * 6 * 7, "has a bias"),
    "dag[i][j], alphas around": (foreign_networks.Controller, 2 + 5 * 8, None),
    "alphas inside, bare pools": (foreign_networks.OwnWeights, 2 * (2 + 5 * 8), None),
    "candidates of each edge, dropout": (foreign_networks.Progressive, 15, None),
    "inverted residuals": (foreign_networks.InvertedResiduals, 0, "no ReLU before a convolution"),
}


@pytest.mark.parametrize(("make", "candidates", "left"), NETWORKS.values(), ids=NETWORKS.keys())
def test_whole_networks(
    make: Callable[[], nn.Module], candidates: int, left: str | None, one_thread: None, unmeasured: None
) -> None:
    theirs, ours = pair(make())
    images = (x(3),)
    report = fastnas.accelerate(ours, example_inputs=images)
    assert sum(e.candidates for e in report.fused) == candidates, str(report)
    assert {left} - {None} == {left for e in report.left if left and left in e.reason}, str(report)  # type: ignore[operator]
    assert len(report.left) == 0 or left
    for _ in range(2):
        assert_same(ours, theirs, images)
    assert_same(ours.eval(), theirs.eval(), images)


def test_code_that_looks_at_what_a_tensor_is_stays() -> None:
    """Inside a fused module results are promises, not tensors, until something else than a sum is made of them."""

    class Choosy(foreign_networks.Choice):
        def _sum(self, items: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
            if not isinstance(items[0], torch.Tensor):
                raise TypeError(f"expected a tensor, got {items[0]!r}")
            total: torch.Tensor = super()._sum(items, weights)
            return total

    for network in (foreign_networks.Choice(), Choosy()):
        theirs, ours = pair(network)
        report = fastnas.accelerate(ours, example_inputs=x())
        assert not report.fused or report.fused[0].error is not None
        assert_same(ours, theirs, (x(),))
    assert "its code asks of which class a candidate's result is" in str(report.left[0].reason)


class _Gate(torch.autograd.Function):
    """Somebody's own derivative, of a candidate's result."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * 3


def test_results_given_to_a_derivative_of_ones_own_do_not_crash() -> None:
    class Gated(stock.MixedOp):
        def forward(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return sum(w * _Gate.apply(op(x)) for w, op in zip(weights, self._ops, strict=True))

    theirs, ours = pair(Gated(C, 1))
    report = fastnas.accelerate(ours, example_inputs=(x(), weights()))
    assert report.left
    assert_same(ours, theirs, (x(), weights()))


def test_code_that_compares_classes_stays() -> None:
    theirs, ours = pair(foreign_networks.ByClass(C, 1))
    report = fastnas.accelerate(ours, example_inputs=(x(), weights()))
    assert "differs from that of its own code" in str(report.left[0].reason)
    assert_same(ours, theirs, (x(), weights()))


def test_a_call_of_many_arguments_is_not_guessed() -> None:
    """It would take minutes: Auto-DeepLab's cells have so many. Their edges are fused all the same."""
    report = fastnas.accelerate(stock_trellis.Network(filters=4, steps=2, layers=2))
    assert {e.kind for e in report.left} == {"Cell"}
    assert all(e.reason and "6 arguments" in e.reason and "give example_inputs" in e.reason for e in report.left)
    assert {e.kind for e in report.fused} == {"MixedOp"}


def test_a_call_of_five_arguments_is_guessed() -> None:
    class Weighted(stock.Cell):
        def forward(self, s0, s1, weights, scale, shift) -> torch.Tensor:  # type: ignore[no-untyped-def, override]
            return super().forward(s0, s1, weights * scale + shift)

    report = fastnas.accelerate(Weighted(C, C, C, False, False))
    assert [e.kind for e in report.fused] == ["Weighted"]
    assert not report.left


def test_rows_of_weights_are_guessed_for_a_cell_that_mixes_by_itself() -> None:
    class Cell(foreign_networks.NamedEdgesCell):
        def __init__(self) -> None:
            super().__init__(C, bias=False)

        forward = foreign_networks.NamedEdgesCell.forward_mixed

    theirs, ours = pair(Cell())
    report = fastnas.accelerate(ours, strict=True)
    assert [e.candidates for e in report.fused] == [6 * 8]
    assert_same(ours, theirs, (x(), rows(6)))


def test_of_sampled_candidates_several_draws_are_verified(monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    for sampled, draws in ((False, 1), (True, 5)):
        compared: list[int] = []
        compare = verify._compare
        monkeypatch.setattr(verify, "_compare", lambda *a, c=compare, seen=compared: (seen.append(a[-1]), c(*a))[1])
        network = foreign_networks.NamedEdges(sampled=sampled)
        report = fastnas.accelerate(network, example_inputs=x(3).float(), strict=True)
        assert len(report.fused) == 1
        assert sorted(compared) == sorted([*range(draws)] * 2)


def test_operators_of_sampled_candidates_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    monkeypatch.setattr(modules, "_OPERATORS", 4)
    theirs, ours = pair(foreign_networks.NamedEdges(sampled=True))
    fastnas.accelerate(ours, example_inputs=x(3), strict=True)
    home = ours.__dict__[modules.STATE]
    for _ in range(10):
        assert_same(ours, theirs, (x(3),))
        assert len(home.cells) <= 4 + 2 * 3, "no more than one call adds"


def test_what_costs_little_stays() -> None:
    class Cheap(stock.MixedOp):
        def __init__(self) -> None:
            super().__init__(C, 1)
            self._ops = nn.ModuleList([self._ops[0], self._ops[3], nn.MaxPool2d(3, 1, 1)])

    _, ours = pair(Cheap())
    report = fastnas.accelerate(ours, example_inputs=(x(), weights(3)))
    assert not report.fused
    assert "costs too little" in str(report)


def test_what_the_model_does_not_call_stays() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = foreign.SoftmaxInside(), foreign.SoftmaxInside()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    report = fastnas.accelerate(Idle(), example_inputs=torch.randn(2, C, 8, 8))
    assert [e.name for e in report.fused] == ["used"]
    assert [(e.name, e.reason) for e in report.left] == [("idle", "the model does not call it with example_inputs")]
