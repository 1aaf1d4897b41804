"""The operator as PyTorch sees it: registration, compilation, and what may and may not be differentiated."""

from __future__ import annotations

import pytest
import torch
from operator_cases import BY_NAME, Problem, fused, problem, run
from torch import Tensor

from fastnas.nn import DartsSupernet
from fastnas.ops import DARTS_CANDIDATES, Norm, edge_spec, mixed_cell, reference, update_running_stats
from fastnas.ops.operator import cell, cell_backward


def arguments(p: Problem, memory: str = "fast", requires_grad: bool = True) -> tuple[object, ...]:
    def leaf(t: Tensor) -> Tensor:
        return t.clone().requires_grad_(requires_grad)

    leaves = [leaf(t) for t in p.inputs], leaf(p.alpha), [leaf(t) for t in p.params]
    return *leaves, p.running, p.spec.text, memory, "cpu"


@pytest.mark.parametrize("name", ["size-3x5-s2", "mixed-norms", "cell-after-reduction"])
@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_opcheck(name: str, memory: str) -> None:
    torch.library.opcheck(cell, arguments(problem(BY_NAME[name]).to(torch.float32), memory))


def test_opcheck_of_the_backward() -> None:
    p = problem(BY_NAME["cell"]).to(torch.float32)
    call = arguments(p, requires_grad=False)
    out, saved, statistics = cell(*call)
    for needs in ([True] * 3, [False, True, False]):
        torch.library.opcheck(cell_backward, (p.grad, out, saved, statistics, *call, needs))


def test_opcheck_of_the_running_statistics() -> None:
    means, variances = [torch.zeros(3), torch.zeros(2)], [torch.ones(3), torch.ones(2)]
    counts = [torch.tensor(0), torch.tensor(4)]
    torch.library.opcheck(update_running_stats, (means, variances, counts, torch.rand(2, 5), [0.1, -1.0], [6, 8]))


@pytest.mark.parametrize(("name", "dynamic"), [("cell-reduction", False), ("uneven-edges", True)])
def test_compiles_to_one_graph(name: str, dynamic: bool) -> None:
    p = problem(BY_NAME[name])

    def function(*args: object) -> tuple[Tensor, Tensor]:
        return mixed_cell(*args, backend="cpu")  # type: ignore[arg-type]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for a, b in zip(run(compiled, p), run(reference.cell, p), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradcheck() -> None:
    p = problem(BY_NAME["size-3x5-s2"])
    leaves = [t.requires_grad_() for t in (*p.inputs, p.alpha, *p.params)]

    def function(x: Tensor, alpha: Tensor, *params: Tensor) -> Tensor:
        return mixed_cell(p.spec, [x], alpha, params, backend="cpu")[0]

    assert torch.autograd.gradcheck(function, leaves)


def test_second_derivatives_are_refused() -> None:
    p = problem(BY_NAME["size-8x8-s1"])
    x = p.inputs[0].requires_grad_()
    out, _ = mixed_cell(p.spec, [x], p.alpha, p.params, backend="cpu")
    (grad,) = torch.autograd.grad(out, x, p.grad.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        grad.sum().backward()


def test_a_retained_graph_replays() -> None:
    p = problem(BY_NAME["cell"])
    x = p.inputs[0].requires_grad_()
    out, _ = mixed_cell(p.spec, p.inputs, p.alpha, p.params, backend="cpu")
    (first,) = torch.autograd.grad(out, x, p.grad, retain_graph=True)
    (second,) = torch.autograd.grad(out, x, p.grad)
    assert torch.equal(first, second)


def test_weights_changed_in_place_before_backward_are_noticed() -> None:
    p = problem(BY_NAME["cell"])
    leaves = [t.requires_grad_() for t in p.params]
    out, _ = mixed_cell(p.spec, p.inputs, p.alpha, leaves, backend="cpu")
    with torch.no_grad():
        leaves[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_statistics_carry_no_gradient() -> None:
    p = problem(BY_NAME["cell"])
    _, statistics = fused("cpu", "fast")(p.spec, [x.requires_grad_() for x in p.inputs], p.alpha, p.params, [])
    assert not statistics.requires_grad


def test_two_forwards_before_one_backward() -> None:
    p = problem(BY_NAME["cell"])
    alpha = p.alpha.requires_grad_()

    def loss(cell) -> Tensor:  # type: ignore[no-untyped-def]
        one, _ = cell(p.spec, p.inputs, alpha, p.params, [])
        two, _ = cell(p.spec, [x + 1 for x in p.inputs], alpha, p.params, [])
        return (one * two * p.grad).sum()

    (ours,) = torch.autograd.grad(loss(fused("cpu", "fast")), alpha)
    (expected,) = torch.autograd.grad(loss(reference.cell), alpha)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_autocast_computes_in_float32(backend: str) -> None:
    p = problem(BY_NAME["cell-reduction"]).to(torch.float32)
    low = [x.bfloat16().requires_grad_() for x in p.inputs]
    alpha = p.alpha.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = mixed_cell(p.spec, low, alpha, p.params, backend=backend)
    same = [x.detach().float().requires_grad_() for x in low]
    expected, _ = mixed_cell(p.spec, same, alpha, p.params, backend=backend)
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    ours = torch.autograd.grad(out, [*low, alpha], p.grad)
    theirs = torch.autograd.grad(expected, [*same, alpha], p.grad)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b.to(a.dtype))
    assert [g.dtype for g in ours] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_a_search_network_trains_under_autocast() -> None:
    network = DartsSupernet(4, 3)
    x = torch.randn(4, 3, 8, 8)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)
    logits.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.weight_parameters())


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_more_candidates_hardly_add_to_what_is_saved(memory: str) -> None:
    """In "lean" nothing but statistics; in "fast" also the first stages of separable convolutions."""
    convolutions = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")

    def saved(candidates: tuple[str, ...]) -> int:
        spec = edge_spec(16, candidates, 1, Norm())
        x = torch.randn(2, 16, 32, 32, requires_grad=True)
        params = [torch.randn(shape) for shape in spec.parameter_shapes]
        found: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            mixed_cell(spec, [x], torch.rand(len(candidates)), params, memory=memory, backend="cpu")
        weights = sum(t.untyped_storage().nbytes() for t in params)
        return sum(found.values()) - weights

    once, twice = saved(DARTS_CANDIDATES), saved((*DARTS_CANDIDATES, *convolutions))
    assert twice < 1.02 * once if memory == "lean" else twice < 2 * once


class TestArguments:
    """Bad arguments are refused with expected and actual, before any work."""

    spec = edge_spec(4, ("sep_conv_3x3", "skip_connect"), 1, Norm())

    def call(self, **changed: object) -> None:
        good = {
            "inputs": [torch.randn(2, 4, 5, 5)],
            "alpha": torch.rand(2),
            "params": [torch.randn(s) for s in self.spec.parameter_shapes],
        }
        mixed_cell(self.spec, **(good | changed))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"inputs": []}, "takes 1 inputs, got 0"),
            ({"inputs": [torch.randn(2, 3, 5, 5)]}, r"must be \(N=2, C=4, H, W\), got \(2, 3, 5, 5\)"),
            ({"inputs": [torch.randn(4, 5, 5)]}, r"got \(4, 5, 5\)"),
            ({"inputs": [torch.randn(2, 4, 0, 5)]}, "must not be empty"),
            ({"inputs": [torch.randn(0, 4, 5, 5)]}, "must not be empty"),
            ({"alpha": torch.rand(3)}, r"α must be \(2,\), got \(3,\)"),
            ({"params": []}, "4 parameter tensors, got 0"),
            (
                {"params": [torch.randn(4, 1, 3, 3)] * 4},
                r"parameter tensor 1 must be \(4, 4, 1, 1\), got \(4, 1, 3, 3\)",
            ),
            ({"alpha": torch.rand(2).double()}, "must be torch.float32 on cpu, got torch.float64"),
            ({"running": [torch.rand(4)]}, "0 running tensors, got 1"),
            ({"memory": "small"}, "memory must be one of fast, lean, got 'small'"),
            ({"backend": "gpu"}, "backend must be auto, cuda, triton, cpu or reference, got 'gpu'"),
            ({"inputs": [torch.randn(1, 4, 1, 1)]}, "Expected more than 1 value per channel when training"),
        ],
    )
    def test_refused(self, changed: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.call(**changed)

    def test_a_dtype_that_the_backend_lacks(self) -> None:
        half = [torch.randn(s).bfloat16() for s in self.spec.parameter_shapes]
        with pytest.raises(RuntimeError, match="float32 and float64, got bfloat16"):
            self.call(
                inputs=[torch.randn(2, 4, 5, 5).bfloat16()], alpha=torch.rand(2).bfloat16(), params=half, backend="cpu"
            )
