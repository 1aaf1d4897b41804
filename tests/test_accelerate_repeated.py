"""Steps of an accelerated module that do what one before did, or something else: only the former is not built again."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import stock
import torch
from foreign import C
from swapped import assert_same, pair, weights, x
from torch import Tensor, nn

import fastnas
from fastnas import _C
from fastnas.swap import graph
from fastnas.swap.build import Plan
from fastnas.swap.promise import Value
from fastnas.swap.read import Tape

HOWS = ("plain", "reversed", "scaled", "one by one", "looked at", "sampled")


class Fickle(nn.Module):
    """Two edges that read `a` and `b`, combined in the way that was asked for last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.ModuleList(stock.candidates(C, 1)) for _ in range(2))
        self.how, self.scale = "plain", 0.5

    def forward(self, a: Tensor, b: Tensor, alpha: Tensor) -> Tensor:
        weights = list(alpha)
        if self.how == "reversed":
            weights.reverse()
        if self.how == "scaled":
            weights = [self.scale * w for w in weights] if self.scale > 1 else weights
            return self.scale * self._mixed(self.first, a, weights) + self._mixed(self.second, b, weights)
        if self.how == "one by one":
            return self.second[5](self.first[4](a) + b) * weights[3] + self.first[6](b)
        if self.how == "looked at":
            first = self._mixed(self.first, a, weights)
            second = self._mixed(self.second, first, weights)
            try:
                mean = first.mean()
            except RuntimeError:  # tries again, as nobody does
                mean = first.mean()
            return second * mean + first
        if self.how == "dropped":  # a long sum that nobody wants
            long = first = self.first[4](a)
            for _ in range(50_000):
                long = first + (long + b)
            del long
            return weights[0] * first
        if self.how == "sampled":
            return self._mixed(self.first[3:6], a, weights[3:6]) + self._mixed(self.second[5:], b, weights[5:])
        return self._mixed(self.first, a, weights) + self._mixed(self.second, b, weights)

    @staticmethod
    def _mixed(ops: Any, x: Tensor, weights: list[Tensor]) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, ops, strict=True))


@pytest.fixture
def modules(one_thread: None, unmeasured: None) -> tuple[Fickle, Fickle]:
    """One as it was written, one accelerated."""
    theirs, ours = pair(Fickle())
    report = fastnas.accelerate(ours, example_inputs=(x(), x(), weights()))
    assert [entry.name for entry in report.fused] == [""], report
    return theirs, ours  # type: ignore[return-value]


def _step(modules: tuple[Fickle, Fickle], how: str, scale: float = 0.5, size: int = 8, same: bool = False) -> None:
    theirs, ours = modules
    for module in modules:
        module.how, module.scale = how, scale
    a = x(size=size)
    assert_same(ours, theirs, (a, a if same else x(size=size), weights()))


def test_what_was_done_before_is_not_built_again(
    modules: tuple[Fickle, Fickle], monkeypatch: pytest.MonkeyPatch
) -> None:
    for how in HOWS:
        for _ in range(2):  # the second knows what is computed by itself
            _step(modules, how)
    _step(modules, "plain", same=True)

    def never(*_: Any) -> None:
        raise AssertionError("it is built again")

    monkeypatch.setattr(graph, "Builder", never)
    for how in reversed(HOWS):
        _step(modules, how, scale=0.25)
    _step(modules, "plain", same=True)
    for module in modules:
        module.eval()
    _step(modules, "reversed")


def test_what_differs_from_before_is_computed_as_written(modules: tuple[Fickle, Fickle]) -> None:
    for scale in (0.5, 1.0, 0.0, 2.0, 2):
        for how in HOWS:
            _step(modules, how, scale)
    for size, same in ((8, True), (6, False), (6, True), (8, False)):
        for how in HOWS:
            _step(modules, how, size=size, same=same)


def test_weights_of_other_tensors(modules: tuple[Fickle, Fickle]) -> None:
    theirs, ours = modules
    a, b, alpha = x(), x(), torch.rand(2, 8).double().requires_grad_()
    fixed = torch.rand(8).double()
    for given in (alpha[0], alpha[1], alpha[1], fixed, alpha.detach()[1], alpha.sum(0), alpha[0].flip(0)):
        for _ in range(2):
            assert_same(ours, theirs, (a, b, given.detach().requires_grad_(given.requires_grad)))
            torch.testing.assert_close(ours(a, b, given), theirs(a, b, given), rtol=1e-9, atol=1e-9)


def test_an_operator_that_failed_once(modules: tuple[Fickle, Fickle], monkeypatch: pytest.MonkeyPatch) -> None:
    compute, failures = Plan.compute, []

    def fails_once(plan: Plan, run: Any) -> Tensor:
        if not failures:
            failures.append(plan)
            raise RuntimeError("out of memory")
        return compute(plan, run)

    monkeypatch.setattr(Plan, "compute", fails_once)
    for _ in range(3):
        _step(modules, "looked at")
    failures.clear()
    for _ in range(2):
        _step(modules, "looked at")
    assert failures


def test_nothing_outlives_a_step(modules: tuple[Fickle, Fickle]) -> None:
    _, ours = modules
    gc.collect()
    gc.disable()
    try:
        for how in HOWS * 2:
            ours.how = how
            given = (x().detach(), x().detach(), weights())
            out = ours(*given)
            kept = [weakref.ref(t) for t in (*given, out)]
            del given, out
            assert not any(t() is not None for t in kept), how
    finally:
        gc.enable()


def test_a_long_sum_is_taken_apart(modules: tuple[Fickle, Fickle]) -> None:
    _, ours = modules
    ours.how = "dropped"
    a, b, alpha = x(), x(), weights()
    out = ours(a, b, alpha)
    torch.testing.assert_close(out, alpha[0] * ours.first[4](a), rtol=1e-9, atol=1e-9)


def test_no_promise_outlives_a_step(modules: tuple[Fickle, Fickle]) -> None:
    _, ours = modules
    kinds = (Value, _C.Call)
    before = [sys.getrefcount(kind) for kind in kinds]  # every object holds its type
    for how in HOWS * 2:
        ours.how = how
        ours(x(), x(), weights())
        assert [sys.getrefcount(kind) for kind in kinds] == before, how


def test_promises_come_from_a_tape() -> None:
    for kind in (_C.Value, _C.Call, Value):
        with pytest.raises(TypeError, match="cannot create"):
            kind()

    class Bare(_C.Tape):
        def __init__(self) -> None:
            """Nothing."""

    with pytest.raises(RuntimeError, match="has not been initialised"):
        Bare().open()
    with pytest.raises(TypeError, match="expected 2 arguments, got 1"):
        Tape((), set(), {}).promise(None)  # type: ignore[call-arg]


def test_what_is_kept_in_mind_is_bounded(modules: tuple[Fickle, Fickle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnas.swap.modules._REMEMBERED", 1000)
    for _ in range(2):
        for how in HOWS:
            _step(modules, how)
