"""The Triton kernels in their interpreter, on the CPU: the operator's table of tests, and what only GPU kernels can do
wrong: leave memory unwritten, reach beyond an allocation, lose bits in half precision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import test_operator
import torch
from interpreter import hurried
from operator_cases import (
    BY_NAME,
    CASES,
    Case,
    Problem,
    edge,
    error,
    fused,
    names,
    problem,
    resize_to,
    run,
    trellis_spec,
)
from test_operator import PRECISE, assert_as_exact_as_eager, assert_usually_as_exact_as_eager, hard
from torch import Tensor

from fastnas.ops import DARTS_CANDIDATES, Norm, gpu, mixed_cell, reference, results

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the interpreter is off: there is a GPU"),
    pytest.mark.usefixtures("one_thread"),
]
memories = pytest.mark.parametrize("memory", ["fast", "lean"])


@pytest.fixture(scope="module", autouse=True)
def _hurried() -> Iterator[None]:
    with hurried():
        yield


class Guarded:
    """Tensors that are full of NaN and lie between zones of NaN, which nobody may write."""

    ZONE = 256

    def __init__(self) -> None:
        self._zones: list[Tensor] = []

    def allocate(self, elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        whole = torch.full((elements + 2 * self.ZONE,), float("nan"), dtype=dtype, device=device)
        self._zones += [whole[: self.ZONE], whole[self.ZONE + elements :]]
        return whole[self.ZONE : self.ZONE + elements]

    def copy(self, t: Tensor) -> Tensor:
        return self.allocate(t.numel(), t.dtype, t.device).copy_(t)

    def like(self, t: Tensor) -> Tensor:
        return self.allocate(t.numel(), t.dtype, t.device).view(t.shape)

    def tensors(self, bases: Sequence[Tensor], params: Tensor, *rest: Any) -> gpu.Tensors:
        """What a call only reads lies between such zones too."""
        given = [self.copy(t) for t in bases[: gpu.INPUTS]]
        return gpu_tensors([*given, *bases[gpu.INPUTS :]], self.copy(params), *rest)

    def check(self) -> None:
        assert self._zones
        assert all(zone.isnan().all() for zone in self._zones), "a kernel wrote beyond an allocation"


gpu_tensors = gpu.Tensors


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    guard = Guarded()
    output, statistics = results.output, results.statistics
    monkeypatch.setattr(gpu, "allocate", guard.allocate)
    monkeypatch.setattr(gpu, "Tensors", guard.tensors)
    monkeypatch.setattr(results, "output", lambda *args: guard.like(output(*args)))
    monkeypatch.setattr(results, "statistics", lambda *args: guard.like(statistics(*args)))
    yield guard
    guard.check()


def assert_agrees(p: Problem, memory: str) -> None:
    """Float32 against float64, for every tensor by itself.

    A few roundings of numbers of the tensor's size; or twice eager's own error, which is larger where a batch norm sees
    only a few values and divides by next to nothing.
    """
    single = p.to(torch.float32)
    exact, eager, ours = run(reference.cell, p), run(reference.cell, single), run(fused("triton", memory), single)
    for name, a, b, e in zip(names(p), ours, exact, eager, strict=True):
        assert a.shape == b.shape, name
        assert not a.isnan().any(), name
        scale = max(1.0, b.abs().max().item()) if b.numel() else 0.0
        assert error(a, b) <= max(1e-5 * scale, 2 * error(e, b)), name


# A minute each in the interpreter; what is new in them is in "small-trellis".
LONG = ("trellis", "trellis-two-ways", "trellis-affine", "trellis-eval")
SMALL_TRELLIS = Case(
    "small-trellis",
    trellis_spec(4, (6, 5, 7, 8), candidates=("sep_conv_3x3", "max_pool_3x3", "skip_connect")),
    ((4, 3), (7, 6), (4, 3), (2, 2)),
)


@pytest.mark.parametrize(
    "case", [*(case for case in CASES if case.name not in LONG), SMALL_TRELLIS], ids=lambda case: case.name
)
@pytest.mark.usefixtures("guarded")
def test_agrees_with_the_reference(case: Case) -> None:
    assert_agrees(problem(case), "fast")


# "lean" differs in what it computes again: stages before the last, and sums of a state that come one by one.
LEAN = [
    "one-sep_conv_3x3-s2",
    "channels-18-s1",
    "channels-34-s2",
    "eval-affine-s2",
    "mixed-norms",
    "uneven-edges",
    "cell",
    "resize-up-4x5-to-7x10",
    "shared-edges",
]


@pytest.mark.parametrize("name", LEAN)
@pytest.mark.usefixtures("guarded")
def test_agrees_with_the_reference_in_lean(name: str) -> None:
    assert_agrees(problem(BY_NAME[name]), "lean")


@pytest.mark.usefixtures("guarded")
def test_a_trellis_agrees_with_the_reference_in_lean() -> None:
    assert_agrees(problem(SMALL_TRELLIS), "lean")


@pytest.mark.parametrize(
    "case",
    [
        edge("many-channels", channels=130, size=(3, 3), candidates=["dil_conv_3x3", "max_pool_3x3", "skip_connect"]),
        edge("many-tiles", channels=3, size=(23, 31), candidates=["dil_conv_3x3", "avg_pool_3x3"], stride=2, batch=3),
    ],
    ids=lambda case: case.name,
)
@pytest.mark.usefixtures("guarded")
def test_several_blocks_and_parts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """More channels than a block holds; parts with several tiles, with one and with none."""
    monkeypatch.setattr(kernels(), "tiling", (1024, 16, 64, 20))
    assert_agrees(problem(case), "fast")


def kernels() -> Any:
    from fastnas.kernels.launch import TritonKernels

    return TritonKernels


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less for the interpreter to do."""
    monkeypatch.setattr(kernels(), "tiling", (4096, 16, 128, 64))


@pytest.fixture
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_operator, "SEEDS", range(3))


@pytest.mark.parametrize("case", [PRECISE[2], PRECISE[3]], ids=lambda case: case.name)
@pytest.mark.usefixtures("large_tiles", "few_seeds")
def test_as_exact_as_eager(case: Case) -> None:
    assert_as_exact_as_eager(case, "triton", "fast")


@hard
@pytest.mark.usefixtures("large_tiles", "few_seeds")
def test_as_exact_as_eager_on_hard_inputs(change: Callable[[Problem], Problem]) -> None:
    assert_as_exact_as_eager(PRECISE[1], "triton", "fast", change)


@hard
@pytest.mark.usefixtures("large_tiles")
def test_usually_as_exact_as_eager_on_small_hard_inputs(change: Callable[[Problem], Problem]) -> None:
    assert_usually_as_exact_as_eager("triton", "lean", change)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "forward", "both", "rectifiers"),
    [("channels-16-s1", 3, 5, 1), ("channels-18-s2", 3, 5, 1), ("cell", 8, 14, 4), ("resize-up-2x2-to-9x17", 2, 4, 1)],
)
@pytest.mark.usefixtures("guarded")
def test_half_precision(name: str, forward: int, both: int, rectifiers: int, dtype: torch.dtype) -> None:
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("stride", [1, 2])
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


@memories
@pytest.mark.parametrize("needed", ["input", "alpha", "params"])
def test_gradients_of_one_group_alone(needed: str, memory: str) -> None:
    p = problem(BY_NAME["one-sep_conv_3x3-s1"]).to(torch.float32)
    groups = {"input": p.inputs, "alpha": [p.alpha], "params": p.params}
    for t in groups[needed]:
        t.requires_grad_()
    expected = torch.autograd.grad(reference.cell(p.spec, p.inputs, p.alpha, p.params, [])[0], groups[needed], p.grad)
    ours = torch.autograd.grad(
        mixed_cell(p.spec, p.inputs, p.alpha, p.params, [], memory, "triton")[0], groups[needed], p.grad
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["channels-18-s2", "shared-edges"])
def test_same_bits_every_time(name: str) -> None:
    p = problem(BY_NAME[name]).to(torch.float32)
    first, second = (run(fused("triton", "fast"), p) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_columns_are_those_of_the_compiled_part() -> None:
    from fastnas import _C
    from fastnas.kernels import columns

    for struct, prefix in (("Job", ""), ("State", "STATE_"), ("Reduction", "REDUCTION_")):
        for name, place in _C.gpu_columns()[struct].items():
            ours = "JOB_COLUMNS" if (struct, name) == ("Job", "columns") else f"{prefix}{name.upper()}"
            assert getattr(columns, ours).value == place, ours


SPECIALIZED = """
import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime.jit import create_function_from_signature
from fastnas.kernels.launch import KERNELS

floats, table = torch.zeros(16), torch.zeros(16, dtype=torch.int64)
for name, kernel in KERNELS.items():
    bind = create_function_from_signature(kernel.signature, kernel.params, CUDABackend(GPUTarget("cuda", 90, 32)))
    constants = {p.name: 16 for p in kernel.params if p.is_constexpr}
    seen = [bind((floats,) * 9, (floats,) * 4, table, *numbers, **constants)[1] for numbers in ((1,) * 6, (7,) * 6)]
    assert seen[0] == seen[1] == bind((floats,) * 9, (floats,) * 4, table[1:], *(16,) * 6, **constants)[1], (name, seen)
"""


def test_kernels_are_not_compiled_again_for_other_numbers() -> None:
    """What runs on a GPU is what the gates have compiled. Asked of Triton's compiler: its interpreter has none."""
    command = [sys.executable, "-c", SPECIALIZED]
    subprocess.run(command, check=True, env=os.environ | {"TRITON_INTERPRET": "0"}, timeout=120)


def test_a_write_beyond_an_allocation_is_seen() -> None:
    guard = Guarded()
    t = guard.allocate(4, torch.float32, torch.device("cpu"))
    guard.check()
    t.as_strided((1,), (1,), t.storage_offset() + 4).fill_(0.0)
    with pytest.raises(AssertionError, match="beyond an allocation"):
        guard.check()
