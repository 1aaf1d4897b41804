"""Numbers that the Triton kernels compute in their interpreter: as exact as eager PyTorch's, rounded as often as half
precision asks for, special where PyTorch's are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from interpreter import MARKS, assert_agrees, triton_kernels
from operator_cases import BY_NAME, Case, Problem, edge, fused, names, problem, resize_to, run
from test_operator import PRECISE, assert_as_exact_as_eager, assert_usually_as_exact_as_eager, correlate, hard, shift

from fastnas.ops import DARTS_CANDIDATES, Norm, reference

pytest.importorskip("triton")
pytestmark = MARKS
thorough = pytest.mark.thorough


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less for the interpreter to do."""
    monkeypatch.setattr(triton_kernels(), "tiling", (4096, 16, 128, 64))


@thorough
@pytest.mark.parametrize("case", [PRECISE[2], PRECISE[3]], ids=lambda case: case.name)
@pytest.mark.usefixtures("large_tiles")
def test_as_exact_as_eager(case: Case) -> None:
    assert_as_exact_as_eager(case, "triton", "fast", seeds=range(3))


@thorough
@hard
@pytest.mark.usefixtures("large_tiles")
def test_as_exact_as_eager_on_hard_inputs(change: Callable[[Problem], Problem]) -> None:
    assert_as_exact_as_eager(PRECISE[1], "triton", "fast", change, range(3))


@thorough
@hard
@pytest.mark.usefixtures("large_tiles")
def test_usually_as_exact_as_eager_on_small_hard_inputs(change: Callable[[Problem], Problem]) -> None:
    assert_usually_as_exact_as_eager("triton", "lean", change)


@pytest.mark.parametrize(("change", "memory"), [(shift, "lean"), (correlate, "fast")])
@pytest.mark.usefixtures("large_tiles")
def test_usually_as_exact_as_eager(change: Callable[[Problem], Problem], memory: str) -> None:
    """A few seeds of what the tests above have more of."""
    assert_usually_as_exact_as_eager("triton", memory, change, range(2))


EDGE, CELL, RESIZED = (3, 5, 1), (8, 14, 4), (2, 4, 1)


@pytest.mark.parametrize(
    ("name", "dtype", "forward", "both", "rectifiers"),
    [
        ("channels-18-s2", torch.float16, *EDGE),
        ("channels-18-s2", torch.bfloat16, *EDGE),
        pytest.param("channels-16-s1", torch.float16, *EDGE, marks=thorough),
        pytest.param("channels-16-s1", torch.bfloat16, *EDGE, marks=thorough),
        ("cell", torch.float16, *CELL),
        pytest.param("cell", torch.bfloat16, *CELL, marks=thorough),
        ("resize-up-2x2-to-9x17", torch.float16, *RESIZED),
        ("resize-up-2x2-to-9x17", torch.bfloat16, *RESIZED),
    ],
    ids=str,
)
@pytest.mark.usefixtures("guarded")
def test_half_precision(name: str, dtype: torch.dtype, forward: int, both: int, rectifiers: int) -> None:
    """Rounding of what is stored, and nothing else: arithmetic and weights are float32.

    With ε half the spacing of numbers at 1, a value is rounded by ε at most each time that it is stored. On the longest
    way through an edge that is u of either stage and y, `forward` = 3; a gradient depends on both u, and on its way
    back is stored as ∂d of either stage and as the state's gradient, `both` = 2 + 3. The cell has a preprocessing and
    two such edges in a row: u and y and twice u, u, y, forward = 8; a gradient depends on all of them but the last y,
    and is stored twice as ∂d, ∂d and the state's gradient and once as the preprocessing's ∂d, which is that of its
    input, both = 7 + 7.

    Where a rectifier's argument is smaller than its error, the gradient takes the wrong branch; numbers of unit
    variance do so with a probability of some ε, which in the 2-norm is √ε, at each of the `rectifiers` whose argument
    has been rounded on that way: the one between the stages, and those that read an inner state. They strike different
    elements, so their squares add up.
    """
    p = problem(BY_NAME[name])
    p = replace(p, inputs=[x.to(dtype).double() for x in p.inputs], grad=p.grad.to(dtype).double())
    half = replace(p.to(torch.float32), inputs=[x.to(dtype) for x in p.inputs], grad=p.grad.to(dtype))
    ours = run(fused("triton", "fast"), half)
    assert ours[0].dtype == ours[2].dtype == dtype
    assert ours[1].dtype == torch.float32
    epsilon = torch.finfo(dtype).eps / 2
    for label, a, b in zip(names(p), ours, run(reference.cell, p), strict=True):
        bound = both * epsilon + (rectifiers * epsilon) ** 0.5 if "∂" in label else forward * epsilon
        assert (a.double() - b).norm() <= bound * b.norm(), label


@pytest.mark.parametrize(
    ("value", "stride"), [(float("nan"), 1), (float("-inf"), 1), (float("inf"), 2)], ids=["nan-s1", "-inf-s1", "inf-s2"]
)
def test_special_values_come_out_where_pytorch_has_them(value: float, stride: int) -> None:
    """In eval mode, since batch statistics spread them over everything; `none` aside, which stock turns into NaN."""
    p = problem(
        edge(
            "special", channels=3, size=(7, 6), candidates=DARTS_CANDIDATES[1:-2], stride=stride, norm=Norm(batch=False)
        )
        if stride == 1
        else edge("special", channels=4, size=(7, 6), candidates=DARTS_CANDIDATES[1:], stride=2, norm=Norm(batch=False))
    ).to(torch.float32)
    p.inputs[0][1, 2, 4, 3] = value
    for name, a, b in zip(names(p), run(fused("triton", "fast"), p), run(reference.cell, p), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("size", "target"), [((5, 4), (9, 7)), ((9, 9), (5, 5))])
def test_special_values_spread_as_pytorch_resamples_them(
    value: float, size: tuple[int, int], target: tuple[int, int]
) -> None:
    """To all outputs that have it among their four neighbours, also with share 0."""
    p = problem(resize_to(size, target)).to(torch.float32)
    p.inputs[0][1, 2, 2, 1] = value
    for name, a, b in zip(names(p), run(fused("triton", "fast"), p), run(reference.cell, p), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True, msg=name)


def test_ties_of_the_maximum_go_to_the_first() -> None:
    for stride in (1, 2):
        p = problem(edge("ties", candidates=("max_pool_3x3",), size=(9, 8), stride=stride))
        p = replace(p, inputs=[x.round().clamp(-1, 1) for x in p.inputs])
        assert_agrees(p, "fast")
