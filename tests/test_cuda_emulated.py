"""The CUDA kernels, run on the CPU (tests/emulated.py), against plain PyTorch: the whole table of cells."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from emulated import EmulatedKernels, LaunchArgument, check, library
from operator_cases import BY_NAME, CASES, Case, Problem, edge, error, fused, names, problem, resize_to, run
from test_operator import PRECISE, assert_as_exact_as_eager, assert_usually_as_exact_as_eager, hard
from torch import Tensor

from fastnas.ops import DARTS_CANDIDATES, Norm, cuda, gpu, operator, reference

POSSIBLE = [case for case in CASES if not cuda.lacks(case.spec)]
cases = pytest.mark.parametrize("case", POSSIBLE, ids=lambda case: case.name)
memories = pytest.mark.parametrize("memory", ["fast", "lean"])
GUARD = 64  # elements of NaN before and after every allocation


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> EmulatedKernels:
    """backend="cuda" runs on CPU tensors."""
    kernels = EmulatedKernels()
    monkeypatch.setattr(operator, "implementation", lambda name: gpu.Gpu(kernels))
    monkeypatch.setattr(sys.modules["fastnas.ops.backends"], "why_not", lambda *_: None)
    return kernels


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Allocations are full of NaN, and nothing may have been written beside them."""
    allocated: list[tuple[Tensor, int]] = []

    def allocate(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        whole = torch.full((elements + 2 * GUARD,), float("nan"), dtype=dtype)
        allocated.append((whole, elements))
        return whole[GUARD : GUARD + elements]

    monkeypatch.setattr(gpu, "allocate", allocate)
    yield
    for whole, elements in allocated:
        assert whole[:GUARD].isnan().all()
        assert whole[GUARD + elements :].isnan().all()


@cases
@memories
def test_agrees_with_the_reference(case: Case, memory: str) -> None:
    p = problem(case)
    exact = run(reference.cell, p)
    ours = run(fused("cuda", memory), p.to(torch.float32))
    assert_close(names(p), ours, exact, 3e-5)


def assert_close(what: list[str], ours: list[Tensor], exact: list[Tensor], bound: float) -> None:
    """Errors relative to a tensor's largest value."""
    for name, a, b in zip(what, ours, exact, strict=True):
        assert a.shape == b.shape, name
        assert error(a, b) <= bound * max(1.0, b.abs().max().item() if b.numel() else 0.0), name


@pytest.mark.parametrize("case", PRECISE, ids=lambda case: case.name)
def test_as_exact_as_eager(case: Case) -> None:
    assert_as_exact_as_eager(case, "cuda", "fast")


@hard
def test_as_exact_as_eager_on_hard_inputs(change: Callable[[Problem], Problem]) -> None:
    assert_as_exact_as_eager(PRECISE[1], "cuda", "lean", change)


@hard
@memories
def test_usually_as_exact_as_eager_on_small_hard_inputs(change: Callable[[Problem], Problem], memory: str) -> None:
    assert_usually_as_exact_as_eager("cuda", memory, change)


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)], ids=["half", "bfloat"])
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if len(case.spec.edges) == 1 or case.name.startswith("resize")],
    ids=lambda case: case.name,
)
def test_half_precision_costs_its_roundings(
    case: Case, dtype: torch.dtype, unit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is rounded, and nothing else.

    The reference rounds u, too: else a mask of ReLU may differ, by which a gradient changes as a whole. Then the result
    is rounded once more, and a gradient at most three times on its way: ∂d of a second stage and of the first, ∂x. Each
    costs at most `unit` of the largest value.
    """

    def rounded(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: object, **kwargs: object) -> Tensor:
            u = compute(*args, **kwargs)
            return u + (u.to(dtype).double() - u).detach()

        return call

    p = problem(case)
    p = replace(p, inputs=[x.to(dtype).double() for x in p.inputs], grad=p.grad.to(dtype).double())
    single = p.to(torch.float32)
    half = replace(single, inputs=[x.to(dtype) for x in single.inputs], grad=single.grad.to(dtype))
    ours = run(fused("cuda", "lean"), half)
    assert ours[0].dtype == dtype
    monkeypatch.setattr(reference, "_convolve", rounded(reference._convolve))
    monkeypatch.setattr(reference.F, "avg_pool2d", rounded(reference.F.avg_pool2d))
    exact = run(reference.cell, p)
    assert_close(names(p), ours, exact, 3 * unit)


@pytest.mark.parametrize("name", ["cell", "cell-after-reduction", "cell-reduction", "uneven-edges", "trellis"])
@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_a_cell_in_half_precision(name: str, memory: str) -> None:
    """Outputs only: states, too, are rounded, and masks differ. Each of at most four states in a row, and each of two
    stages into it, costs a rounding, which batch norm may double."""
    p = problem(BY_NAME[name])
    p = replace(p, inputs=[x.half().double() for x in p.inputs])
    half = replace(p.to(torch.float32), inputs=[x.half() for x in p.inputs], grad=p.grad.half())
    exact, ours = run(reference.cell, p), run(fused("cuda", memory), half)
    assert_close(names(p)[:2], ours[:2], exact[:2], 2 * 4 * 3 * 2**-11)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("stride", [1, 2])
def test_special_values_come_out_where_pytorch_has_them(value: float, stride: int) -> None:
    candidates = DARTS_CANDIDATES[1:]
    p = problem(edge("special", size=(12, 12), candidates=candidates, stride=stride, norm=Norm(batch=False)))
    p.inputs[0][1, 3, 5, 6] = value
    exact, ours = run(reference.cell, p), run(fused("cuda", "lean"), p.to(torch.float32))
    for name, a, b in zip(names(p), ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("size", "target"), [((5, 4), (9, 7)), ((9, 9), (5, 5))])
def test_special_values_spread_as_pytorch_resamples_them(
    value: float, size: tuple[int, int], target: tuple[int, int]
) -> None:
    """To all outputs that have it among their four neighbours, also with share 0."""
    p = problem(resize_to(size, target))
    p.inputs[0][1, 2, 2, 1] = value
    exact, ours = run(reference.cell, p), run(fused("cuda", "lean"), p.to(torch.float32))
    for name, a, b in zip(names(p), ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


def test_ties_of_the_maximum_go_to_the_first() -> None:
    p = problem(edge("ties", candidates=("max_pool_3x3",), size=(9, 9)))
    p = replace(p, inputs=[x.round().clamp(-1, 1) for x in p.inputs])
    assert_close(names(p), run(fused("cuda", "fast"), p.to(torch.float32)), run(reference.cell, p), 3e-5)


@memories
@pytest.mark.parametrize("needed", ["inputs", "alpha", "params"])
def test_gradients_of_one_group_alone(needed: str, memory: str) -> None:
    p = problem(BY_NAME["trellis"])
    single = p.to(torch.float32)

    def gradients(cell: Callable[..., tuple[Tensor, Tensor]], p: Problem) -> Sequence[Tensor]:
        group = {"inputs": p.inputs, "alpha": [p.alpha], "params": p.params}[needed]
        for t in group:
            t.requires_grad_()
        return torch.autograd.grad(cell(p.spec, p.inputs, p.alpha, p.params, [])[0], group, p.grad)

    exact = gradients(reference.cell, p)
    assert_close([needed] * len(exact), gradients(fused("cuda", memory), single), exact, 3e-5)


@pytest.mark.parametrize("name", ["cell-reduction", "channels-65", "many-images", "shared-edges", "trellis"])
def test_same_bits_in_whatever_order_blocks_run(name: str, kernels: EmulatedKernels) -> None:
    p = problem(BY_NAME[name]).to(torch.float32)
    first = run(fused("cuda", "lean"), p)
    for seed in (0, 2, 3):
        kernels.seed = seed
        assert all(torch.equal(a, b) for a, b in zip(run(fused("cuda", "lean"), p), first, strict=True))


@pytest.mark.parametrize("blocks", [1, 3, 1000])
def test_any_number_of_parts(blocks: int, kernels: EmulatedKernels) -> None:
    """One block for all tiles of a job, several tiles for each, one for each and some without any."""
    kernels.tiling = (512, 4, 16, blocks)
    for name in ("cell-reduction", "uneven-edges", "shared-edges"):
        p = problem(BY_NAME[name])
        assert_close(names(p), run(fused("cuda", "fast"), p.to(torch.float32)), run(reference.cell, p), 3e-5)


def test_as_many_channels_as_fit() -> None:
    p = problem(edge("wide", channels=cuda.CHANNELS, size=(3, 3), candidates=("sep_conv_3x3", "max_pool_3x3")))
    assert_close(names(p), run(fused("cuda", "fast"), p.to(torch.float32)), run(reference.cell, p), 1e-4)


@pytest.mark.parametrize(("dtype", "name"), [(torch.float16, "half"), (torch.bfloat16, "bfloat")])
def test_conversions_round_as_pytorch_does(dtype: torch.dtype, name: str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    singles = torch.empty(len(every))
    getattr(library(), f"fastnas_from_{name}")(every.data_ptr(), singles.data_ptr(), len(every))
    assert torch.equal(singles.nan_to_num(7), every.view(dtype).float().nan_to_num(7))

    # Every number that can be stored, the middle between it and its neighbour, and what lies just beside that.
    middles = (singles + singles.roll(1)) / 2
    beside = [torch.nextafter(middles, torch.tensor(x)) for x in (-float("inf"), float("inf"))]
    given = torch.cat([singles, middles, *beside, torch.randn(1000), torch.randn(1000) * 1e-6, torch.randn(1000) * 1e5])
    stored = torch.empty(len(given), dtype=torch.int16)
    getattr(library(), f"fastnas_to_{name}")(given.data_ptr(), stored.data_ptr(), len(given))
    expected = given.to(dtype)
    assert torch.equal(stored.view(dtype)[~given.isnan()], expected[~given.isnan()])
    assert stored.view(dtype)[given.isnan()].isnan().all()


def broken(name: str, size: int, seed: int) -> Tensor:
    """What a kernel of csrc/cuda/emulate/broken.cuh writes after 0, 1, 2, …, with room for one number more."""
    given, written = torch.arange(float(size)), torch.full((size + 1,), float("nan"))
    tensors = cuda.TensorsArgument((given.data_ptr(), written.data_ptr()))
    launch = LaunchArgument(grid_x=1, grid_y=1, tile=size)
    check(library().fastnas_broken(name.encode(), ctypes.byref(tensors), ctypes.byref(launch), seed))
    return written


def test_a_missing_barrier_is_seen() -> None:
    for seed in range(3):
        right = broken("reverse_right", 128, seed)
        assert torch.equal(right[:128], torch.arange(128.0).flip(0))
        assert broken("reverse_racing", 128, seed)[:128].isnan().any()


def test_a_write_out_of_bounds_is_seen() -> None:
    assert broken("reverse_right", 64, 1)[64].isnan()
    assert not broken("out_of_bounds", 64, 1)[64].isnan()


def test_a_barrier_that_not_all_threads_reach_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not all threads reach"):
        broken("uneven", 64, 1)
    assert broken("reverse_right", 64, 1)[0] == 63  # the next launch finds nothing of it


def test_a_shuffle_with_a_lane_outside_its_mask_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="which its mask leaves out"):
        broken("half_shuffle", 64, 1)
