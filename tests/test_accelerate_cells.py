"""`fastnas.accelerate` on other people's edges and cells: they compute what they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import foreign
import pytest
import stock
from foreign import SIZE, C
from swapped import assert_same, pair, rows, weights, x
from torch import nn

import fastnas

STYLES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "edge": (lambda: stock.MixedOp(C, 1), lambda: (x(), weights())),
    "edge of stride 2": (lambda: stock.MixedOp(C, 2), lambda: (x(), weights())),
    "weights as a list": (foreign.WeightsAsList, lambda: (x(), list(rows(1)[0].detach().requires_grad_()))),
    "softmax inside": (foreign.SoftmaxInside, lambda: (x(),)),
    "missing candidates": (foreign.MissingCandidates, lambda: (x(), weights())),
    "bare pools": (foreign.BarePools, lambda: (x(), weights())),
    "bare pools, stride 2": (lambda: foreign.BarePools(stride=2), lambda: (x(), weights())),
    "partial channels": (foreign.PartialChannels, lambda: (x(4 * C), weights())),
    "partial channels, stride 2": (lambda: foreign.PartialChannels(stride=2), lambda: (x(4 * C), weights())),
    "slices that look alike": (lambda: foreign.AlikeSlices(C, 1), lambda: (x(2 * C), weights())),
    "drop path and no_grad": (lambda: foreign.SampledPath(C, 1), lambda: (x(), weights())),
    "shared weights": (foreign.SharedWeights, lambda: (x(), weights())),
    "unused": (lambda: foreign.Unused(C, 1), lambda: (x(), weights())),
    "cell": (lambda: stock.Cell(12, 8, C, False, False), lambda: (x(12), x(8), rows(14))),
    "cell after a reduction": (lambda: stock.Cell(12, 8, C, False, True), lambda: (x(12, 16), x(8), rows(14))),
    "reduction cell": (lambda: stock.Cell(12, 8, C, True, False), lambda: (x(12), x(8), rows(14))),
    "PC-DARTS cell": (foreign.PCCell, lambda: (x(12), x(12), rows(5), weights(5))),
    "PC-DARTS reduction": (lambda: foreign.PCCell(reduction=True), lambda: (x(12), x(12), rows(5), weights(5))),
    "stacked cell": (foreign.StackedCell, lambda: (x(12), x(12), rows(5))),
    "trellis cell": (foreign.TrellisCell, lambda: (x(12), x(6, 2 * SIZE), x(12), x(24, SIZE // 2), rows(5))),
    "trellis cell, one way": (
        lambda: foreign.TrellisCell(prev_prev=0),
        lambda: (None, x(6, 2 * SIZE), None, None, rows(5)),
    ),
}
styles = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())


@pytest.mark.usefixtures("one_thread", "unmeasured")
@styles
@pytest.mark.parametrize("with_inputs", [False, True], ids=["guessed", "given"])
def test_computes_what_it_did(style: Any, with_inputs: bool) -> None:
    theirs, ours = pair(style[0]())
    inputs = style[1]()
    report = fastnas.accelerate(ours, example_inputs=inputs if with_inputs else None)
    if with_inputs:
        assert report.fused, str(report)
    for _ in range(3):  # also of what the first call has found out
        assert_same(ours, theirs, inputs)
    assert_same(ours.eval(), theirs.eval(), inputs)
