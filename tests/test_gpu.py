"""The operator on real GPUs (make test-gpu). Where there is none, every test is skipped and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from operator_cases import BY_NAME, CASES, Case, Problem, error, fused, names, problem, run
from test_operator import PRECISE
from torch import Tensor

from fastnas.nn import DartsSupernet
from fastnas.ops import mixed_cell, reference
from fastnas.ops.backends import why_not

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
memories = pytest.mark.parametrize("memory", ["fast", "lean"])


@pytest.fixture(params=["triton", "cuda"])
def backend(request: pytest.FixtureRequest) -> str:
    reason = why_not(request.param, torch.empty(1, device="cuda"))
    if reason:
        pytest.skip(f"backend {request.param!r} cannot run: {reason}")
    return str(request.param)


@pytest.fixture(autouse=True)
def _exact_convolutions() -> Iterator[None]:
    """Eager's own must not round to ten bits."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = allowed


def on(p: Problem, device: str | torch.device = "cuda", dtype: torch.dtype = torch.float32) -> Problem:
    single = p.to(dtype)
    lists: dict[str, Any] = {
        name: [t.to(device) for t in getattr(single, name)] for name in ("inputs", "params", "running")
    }
    return replace(single, alpha=single.alpha.to(device), grad=single.grad.to(device), **lists)


def assert_agrees(case: Case, backend: str, memory: str, seeds: int, granted: float = 0.0) -> None:
    """As exact as twice eager, largest over seeds, or up to `granted` times a tensor's largest value."""
    worst: dict[str, list[float]] = {}
    for seed in range(seeds):
        p = problem(case, seed)
        exact, eager = run(reference.cell, p), run(reference.cell, on(p))
        ours = run(fused(backend, memory), on(p))
        for name, e, a, b in zip(names(p), exact, eager, ours, strict=True):
            assert not b.isnan().any(), name
            scale = max(1.0, e.abs().max().item()) if e.numel() else 0.0
            found = worst.setdefault(name, [0.0, 0.0])
            found[0] = max(found[0], 2 * error(a.cpu(), e), granted * scale)
            found[1] = max(found[1], error(b.cpu(), e))
    for name, (allowed, actual) in worst.items():
        assert actual <= allowed, f"{name}: {actual:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@memories
def test_agrees_with_the_reference(case: Case, backend: str, memory: str) -> None:
    # With one seed alone, chance decides which of two is less exact in one of this case's many tensors.
    assert_agrees(case, backend, memory, seeds=6 if case.name == "trellis-affine" else 1, granted=1e-5)


@pytest.mark.parametrize("case", PRECISE, ids=lambda case: case.name)
@memories
def test_as_exact_as_eager(case: Case, backend: str, memory: str) -> None:
    assert_agrees(case, backend, memory, seeds=6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_keeps_half_precision(dtype: torch.dtype, backend: str) -> None:
    p = on(problem(PRECISE[0]))
    with torch.autocast("cuda", dtype):
        out, statistics = mixed_cell(p.spec, p.inputs, p.alpha, p.params, [], "fast", backend)
    assert (out.dtype, statistics.dtype) == (dtype, torch.float32)
    exact, _ = mixed_cell(p.spec, p.inputs, p.alpha, p.params, [], "fast", backend)
    rounded = 4  # x, u of two stages and y, each by half an ε
    assert (out.float() - exact).norm() <= rounded / 2 * torch.finfo(dtype).eps * exact.norm()


@memories
def test_same_bits_every_time(backend: str, memory: str) -> None:
    p = on(problem(PRECISE[1]))
    first, second = (run(fused(backend, memory), p) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_streams(backend: str) -> None:
    p = on(problem(PRECISE[1]))
    expected = run(fused(backend, "fast"), p)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ours = run(fused(backend, "fast"), p)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("inside", [True, False])
def test_another_device_than_the_current_one(inside: bool, backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    p = problem(PRECISE[1])
    with torch.cuda.device(1) if inside else nullcontext():
        ours = run(fused(backend, "fast"), on(p, "cuda:1"))
    expected = run(fused(backend, "fast"), on(p, "cuda:0"))
    assert all(torch.allclose(a.cpu(), b.cpu(), atol=1e-5) for a, b in zip(ours, expected, strict=True))


def test_a_graph_of_forward_and_backward_replays(backend: str) -> None:
    p = on(problem(BY_NAME["cell"]))
    leaves = [t.requires_grad_() for t in (*p.inputs, p.alpha, *p.params)]

    def step() -> tuple[Tensor, ...]:
        out, _ = mixed_cell(p.spec, p.inputs, p.alpha, p.params, [], "fast", backend)
        return (out, *torch.autograd.grad(out, leaves, p.grad, allow_unused=True))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for leaf in leaves:
            leaf.mul_(0.5)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@memories
def test_a_network_saves_an_order_of_magnitude_less(backend: str, memory: str) -> None:
    import stock

    saved = {}
    for name, network in {
        "stock": stock.Network(8, 3),
        "fastnas": DartsSupernet(8, 3, memory=memory, backend=backend),
    }.items():
        network.cuda()
        images = torch.randn(16, 3, 32, 32, device="cuda")
        network(images).sum().backward()
        before = torch.cuda.memory_allocated()
        logits = network(images)
        saved[name] = torch.cuda.memory_allocated() - before
        del logits
    assert saved["fastnas"] * (10 if memory == "fast" else 30) <= saved["stock"]
