"""Dense atrous candidates, against the modules that hold their parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.measure import saved_for_backward
from fastnas.nn.dense_atrous import DenseAtrous, atrous_candidate
from fastnas.nn.dense_trellis import DenseTrellisCell

pytestmark = pytest.mark.usefixtures("one_thread")

C, KERNELS = 3, (3, 5)


def candidates(edges: int = 2) -> nn.ModuleList:
    """Those of every edge, in float64."""
    torch.manual_seed(0)
    return nn.ModuleList(nn.ModuleList(atrous_candidate(C, k) for k in KERNELS) for _ in range(edges)).double()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_candidate_is_a_convolution_of_rate_two_and_keeps_the_size(kernel: int) -> None:
    candidate, x = atrous_candidate(C, kernel).double(), torch.randn(2, C, 7, 6).double()
    (weight,) = candidate.parameters()
    apart = torch.zeros(C, C, 2 * kernel - 1, 2 * kernel - 1).double()
    apart[:, :, ::2, ::2] = weight.detach()
    expected = F.batch_norm(F.conv2d(x.relu(), apart, padding=kernel - 1), None, None, training=True)
    torch.testing.assert_close(candidate(x), expected, rtol=1e-9, atol=1e-9)


def eager(edges: nn.ModuleList) -> Callable[[Tensor, Tensor | None, Tensor], Tensor]:
    """What the modules compute."""

    def call(x: Tensor, sums: Tensor | None, alpha: Tensor) -> Tensor:
        terms: list[Any] = [
            sum(w * op(x) for w, op in zip(row, ops, strict=True)) for row, ops in zip(alpha, edges, strict=True)
        ]
        return torch.cat(terms, 1) if sums is None else sums + torch.cat(terms, 1)

    return call


def run(call: Any, edges: nn.ModuleList, batch: int, summed: bool) -> list[Tensor]:
    """The result and every gradient."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(batch, C, 7, 6), (len(edges), len(KERNELS)), *([(batch, C * len(edges), 7, 6)] if summed else [])]
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    out = call(leaves[0], leaves[2] if summed else None, leaves[1])
    return [out, *torch.autograd.grad(out.sin().sum(), [*leaves, *edges.parameters()])]


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("batch", "summed"), [(2, True), (1, False)])
def test_it_is_what_the_modules_compute(memory: str, training: bool, batch: int, summed: bool) -> None:
    ours, theirs = candidates(), candidates()
    for _ in range(2):  # the second time with other running statistics
        found = run(DenseAtrous(list(ours), memory), ours.train(training), batch, summed)
        expected = run(eager(theirs), theirs.train(training), batch, summed)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        training = True
    for name, b in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("edges", [1, 2])
def test_running_statistics_move_as_often_as_asked(edges: int) -> None:
    ours, theirs = candidates(edges), candidates(edges)
    x, alpha = torch.randn(2, C, 5, 5).double(), torch.rand(edges, 2).double()
    DenseAtrous(list(ours), "lean", repeats=3)(x, None, alpha)
    for _ in range(3):
        for op in (op for ops in theirs for op in ops):
            op(x)
    for name, b in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_what_is_saved(memory: str) -> None:
    edges = candidates(4)
    x, alpha = torch.randn(2, C, 32, 32).double().requires_grad_(), torch.rand(4, 2).double()
    call = DenseAtrous(list(edges), memory)
    saved = saved_for_backward(lambda: call(x, None, alpha), [x, alpha, *edges.parameters(), *edges.buffers()])
    outputs = (4 + 1) * len(KERNELS) * x.nbytes if memory == "fast" else 0  # four edges', and what is convolved
    assert outputs <= saved.storages <= outputs + sum(p.nbytes for p in edges.parameters()) + 4096


def test_a_lean_cell_keeps_its_states_alone() -> None:
    steps, shape = 2, (2, C, 32, 32)
    cell = DenseTrellisCell(6, (4, 6, 8), C, steps, memory="lean")
    inputs = [torch.randn(2, width, side, side) for width, side in ((6, 32), (4, 63), (6, 32), (8, 16))]
    alpha, beta = torch.rand(5, 8), torch.rand(3).requires_grad_()
    known = [*inputs, alpha, beta, *cell.parameters(), *cell.buffers()]
    saved = saved_for_backward(lambda: cell(inputs[0], inputs[1:], alpha, beta), known)
    states = 1 + 3 * (1 + steps)  # prev-prev and three ways' ends, preprocessed, and the nodes on each way
    assert states <= saved.storages / torch.empty(shape).nbytes <= states + 0.5


def test_a_phase_computes_its_own_gradients_only() -> None:
    edges = candidates()
    x, alpha = torch.randn(2, C, 5, 5).double(), torch.rand(2, 2).double().requires_grad_()
    edges.requires_grad_(False)
    DenseAtrous(list(edges), "lean")(x, None, alpha).sin().sum().backward()
    assert alpha.grad is not None
    assert all(p.grad is None for p in edges.parameters())
    edges.requires_grad_(True)
    DenseAtrous(list(edges), "lean")(x, None, alpha.detach()).sin().sum().backward()
    assert all(p.grad is not None for p in edges.parameters())


def test_float32_is_as_exact_as_eager() -> None:
    """Where means are large beside deviations, too: at most twice eager's error."""
    exact = candidates()
    single = copy.deepcopy(exact).float()
    x = (torch.rand(4, C, 16, 16) + 20).double()
    alpha = torch.rand(2, 2)
    reference = eager(exact)(x, None, alpha.double())
    errors = [
        (call(x.float(), None, alpha) - reference).abs().amax().item()
        for call in (DenseAtrous(list(single), "lean"), eager(single))
    ]
    assert errors[0] <= 2 * errors[1]


def test_under_autocast_it_computes_in_the_dtype_of_x() -> None:
    edges = candidates().float()
    call, x, alpha = DenseAtrous(list(edges), "lean"), torch.randn(2, C, 5, 5), torch.rand(2, 2)
    expected = call(x, None, alpha)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(call(x, None, alpha), expected, rtol=0, atol=0)
        half = call(x.bfloat16(), None, alpha)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_norms_of_both_modes_are_refused() -> None:
    edges = candidates()
    edges[0].eval()
    with pytest.raises(ValueError, match="must all have the same mode and the same eps"):
        DenseAtrous(list(edges), "lean")(torch.randn(2, C, 5, 5).double(), None, torch.rand(2, 2).double())
