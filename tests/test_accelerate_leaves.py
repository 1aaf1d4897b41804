"""`fastnas.accelerate` on batch norms and convolutions of every kind that the operator takes."""

from __future__ import annotations

from typing import Any

import pytest
from foreign import Spoilt, chain
from swapped import assert_same, pair, weights, x
from torch import nn

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
