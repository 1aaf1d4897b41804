"""Measured memory against memory that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastnas import measure
from fastnas.measure import peak, saved_for_backward
from fastnas.nn import Cell, DartsSupernet
from fastnas.ops import DARTS_CANDIDATES

MB = 10**6
CONVOLUTIONS = tuple(name for name in DARTS_CANDIDATES if "conv" in name)


def image(channels: int = 6) -> Tensor:
    return torch.randn(4, channels, 8, 8, requires_grad=True)


def size(t: Tensor) -> int:
    return t.numel() * t.element_size()


class Twice(torch.autograd.Function):
    """Saves a tensor, and a view of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        made = x * 2
        ctx.save_for_backward(made, made[1:])
        return x.clone()


class Smuggle(torch.autograd.Function):
    """Keeps a tensor where autograd does not know of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.smuggled = torch.ones(25 * MB)
        return x.clone()


def test_relu_saves_its_output() -> None:
    x = image()
    assert saved_for_backward(x.relu, [x]).storages == size(x)


def test_linear_saves_its_input_and_no_parameter_that_is_left_out() -> None:
    x, linear = torch.randn(5, 7), nn.Linear(7, 3)
    assert saved_for_backward(lambda: linear(x), linear.parameters()).storages == size(x)
    assert saved_for_backward(lambda: linear(x), [x, *linear.parameters()]).storages == 0
    hidden = torch.randn(5, 7, requires_grad=True)
    both = size(hidden) + size(linear.weight)
    assert saved_for_backward(lambda: linear(hidden)).storages == both


def test_what_two_nodes_save_counts_once() -> None:
    x, first, second = torch.randn(5, 7), nn.Linear(7, 11), nn.Linear(11, 3)
    known = [x, *first.parameters(), *second.parameters()]
    assert saved_for_backward(lambda: second(first(x).relu()), known).storages == 5 * 11 * 4


def test_a_function_that_saves_a_tensor_and_its_view_counts_once() -> None:
    x = image()
    assert saved_for_backward(lambda: Twice.apply(x), [x]).storages == size(x)


def test_a_view_counts_with_its_whole_storage() -> None:
    x = image()
    assert saved_for_backward(lambda: torch.square((x * 2)[:1]), [x]).storages == size(x)


def test_views_of_what_is_left_out_are_left_out() -> None:
    x = image()
    assert saved_for_backward(lambda: torch.square(x[:1]), [x]).storages == 0


def test_indices_count_with_their_eight_bytes() -> None:
    x = image()
    pooled = x.numel() // 4
    assert saved_for_backward(lambda: nn.functional.max_pool2d(x, 2), [x]).storages == 8 * pooled


def test_batch_norm_saves_statistics_beside_its_input() -> None:
    x, norm = image(), nn.BatchNorm2d(6)
    known = [x, *norm.parameters(), *norm.buffers()]
    assert saved_for_backward(lambda: norm(x), known).storages == 2 * 6 * 4


def test_a_branch_that_is_dropped_does_not_count() -> None:
    x = image()

    def forward() -> Tensor:
        x.exp().tanh()
        return x.relu()

    assert saved_for_backward(forward, [x]).storages == size(x)


def test_nothing_is_saved_without_gradients() -> None:
    x = image()
    with torch.no_grad():
        assert saved_for_backward(x.relu, [x]).storages == 0


def test_gradients_are_the_same_while_measured() -> None:
    x = image()
    results: list[Tensor] = []
    saved_for_backward(lambda: results.append((x.sigmoid() * x).sum()), [x])
    (measured,) = torch.autograd.grad(results[0], x)
    (expected,) = torch.autograd.grad((x.sigmoid() * x).sum(), x)
    assert torch.equal(measured, expected)


def test_measuring_leaves_nothing_behind() -> None:
    x = torch.randn(25 * MB, requires_grad=True)
    before = measure.resident()
    saved_for_backward(x.exp, [x])
    assert measure.resident() - before < 5 * MB


def test_resident_memory_confirms_what_is_saved() -> None:
    x = torch.randn(25 * MB, requires_grad=True)
    saved = saved_for_backward(lambda: (x * 2).sin().sum(), [x])
    assert saved.storages == 100 * MB
    assert saved.resident == pytest.approx(100 * MB, rel=0.05)


def test_resident_memory_shows_what_autograd_does_not_know_of() -> None:
    x = torch.randn(3, requires_grad=True)
    saved = saved_for_backward(lambda: Smuggle.apply(x), [x])
    assert saved.storages == 0
    assert saved.resident == pytest.approx(100 * MB, rel=0.05)


def test_peak_of_what_is_allocated_and_freed() -> None:
    assert peak(lambda: torch.ones(50 * MB)) == pytest.approx(200 * MB, rel=0.05)


def test_peak_forgets_what_was_before() -> None:
    torch.ones(50 * MB)
    kept = torch.ones(25 * MB)
    assert peak(lambda: torch.ones(10 * MB)) == pytest.approx(40 * MB, rel=0.05)
    del kept


def test_peak_counts_memory_that_small_allocations_freed_before() -> None:
    blocks = [torch.ones(16_000) for _ in range(1_000)]
    del blocks
    assert peak(lambda: [torch.ones(16_000) for _ in range(1_000)]) == pytest.approx(64 * MB, rel=0.05)


def test_lean_saves_node_states_and_fast_the_stages_outputs_besides() -> None:
    """The 14 edges of a cell have 28 separable convolutions, each with a first stage."""
    x = torch.randn(2, 3, 16, 16)
    sizes = {}
    for memory in ("fast", "lean"):
        network = DartsSupernet(16, 1, 10, memory=memory)
        existing = [x, *network.parameters(), *network.buffers()]
        sizes[memory] = saved_for_backward(lambda network=network: network(x), existing).storages
    plane = 2 * 32 * 8 * 8 * 4  # the one cell reduces: 32 channels of 8×8
    assert sizes["fast"] - sizes["lean"] == 28 * plane


def test_twice_the_convolutions_add_less_than_two_percent_to_what_lean_saves() -> None:
    inputs, sizes = [torch.randn(4, 64, 32, 32) for _ in range(2)], []
    for candidates in (DARTS_CANDIDATES, DARTS_CANDIDATES + CONVOLUTIONS):
        cell = Cell(64, 64, 16, reduction=False, reduction_prev=False, candidates=candidates, memory="lean")
        weights = torch.rand(14, len(candidates))
        existing = [*inputs, weights, *cell.parameters(), *cell.buffers()]
        sizes.append(saved_for_backward(lambda cell=cell, weights=weights: cell(*inputs, weights), existing).storages)
    assert sizes[0] < sizes[1] < 1.02 * sizes[0]


def test_a_mark_that_cannot_be_reset_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    with pytest.raises(OSError, match="the peak cannot be measured"):
        peak(lambda: None)


def test_a_mark_that_stays_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.ones(50 * MB)
    monkeypatch.setattr(measure, "_CLEAR_REFS", tmp_path / "clear_refs")
    with pytest.raises(OSError, match="left it at"):
        peak(lambda: None)


def test_a_system_that_reports_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "status")
    with pytest.raises(OSError, match="memory cannot be measured"):
        measure.resident()
    (tmp_path / "status").write_text("Name:\tpython\n")
    with pytest.raises(OSError, match="has no VmRSS"):
        measure.resident()
