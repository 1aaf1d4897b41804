"""`fastnas.accelerate` on random cells: whatever it makes of them, they compute what they did."""

from __future__ import annotations

import pytest
from random_cells import random_cell
from swapped import assert_same, pair

import fastnas


def test_random_cells(pytestconfig: pytest.Config, one_thread: None, unmeasured: None) -> None:
    fused = 0
    for seed in range(pytestconfig.getoption("--fuzz")):
        cell, inputs = random_cell(seed)
        theirs, ours = pair(cell)
        memory = ("fast", "lean")[seed % 2]
        report = fastnas.accelerate(ours, memory=memory, example_inputs=inputs if seed % 4 else None)
        fused += sum(e.candidates for e in report.fused)
        try:
            for _ in range(2):
                assert_same(ours, theirs, inputs)
            assert_same(ours.eval(), theirs.eval(), inputs)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{report}\n{cell}") from error
    assert fused > 4 * pytestconfig.getoption("--fuzz")
