"""The Triton kernels in their interpreter, on the CPU: the operator's table of tests, and what only GPU kernels can do
wrong: leave memory unwritten, reach beyond an allocation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from interpreter import MARKS, Guarded, assert_agrees, triton_kernels
from operator_cases import BY_NAME, CASES, Case, cell_spec, edge, fused, problem, run, trellis_spec

from fastnas.ops import mixed_cell, reference

pytest.importorskip("triton")
pytestmark = MARKS
memories = pytest.mark.parametrize("memory", ["fast", "lean"])

# A minute each in the interpreter; what is new in them is in "small-trellis".
LONG = ("trellis", "trellis-two-ways", "trellis-affine", "trellis-eval")
FEW = ("sep_conv_3x3", "max_pool_3x3", "skip_connect")
SMALL_TRELLIS = Case("small-trellis", trellis_spec(4, (6, 5, 7, 8), candidates=FEW), ((4, 3), (7, 6), (4, 3), (2, 2)))
SMALL = [
    SMALL_TRELLIS,
    Case("small-reduction", cell_spec(4, reduction=True, widths=(4, 7), candidates=FEW), ((5, 4), (5, 4))),
    edge("small-34-s2", channels=34, size=(4, 3), stride=2, candidates=("dil_conv_5x5", "avg_pool_3x3", *FEW)),
]
# What is new in these is in smaller ones: three widths of a block, several tiles, cells, and every kind of norm.
MORE = {
    *(f"size-{size}-s{stride}" for size in ("8x8", "7x14", "17x9") for stride in (1, 2)),
    *(f"channels-{count}-s{stride}" for count in (34, 48) for stride in (1, 2)),
    *("channels-2-s1", "channels-8-s1", "channels-12-s2", "channels-16-s1", "channels-18-s1", "channels-65"),
    *("affine", "eval", "eps", "order", "uneven-edges", "cell", "cell-reduction", "cell-affine", "cell-eval"),
}


def some(cases: Iterable[Case], more: set[str]) -> list[Any]:
    """Parameters of a test, of which those in `more` are left to `--thorough`."""
    return [pytest.param(c, id=c.name, marks=[pytest.mark.thorough] if c.name in more else []) for c in cases]


@pytest.mark.parametrize("case", some([*(case for case in CASES if case.name not in LONG), *SMALL], MORE))
@pytest.mark.usefixtures("guarded")
def test_agrees_with_the_reference(case: Case) -> None:
    assert_agrees(problem(case), "fast")


# "lean" differs in what it computes again: stages before the last, and sums of a state that come one by one.
LEAN = [
    *(BY_NAME[name] for name in ("one-sep_conv_3x3-s2", "channels-18-s1", "channels-34-s2", "eval-affine-s2", "cell")),
    *(BY_NAME[name] for name in ("mixed-norms", "uneven-edges", "resize-up-4x5-to-7x10", "shared-edges")),
    *SMALL,
]


@pytest.mark.parametrize("case", some(LEAN, {"channels-18-s1", "channels-34-s2"}))
@pytest.mark.usefixtures("guarded")
def test_agrees_with_the_reference_in_lean(case: Case) -> None:
    assert_agrees(problem(case), "lean")


BLOCKS = [
    edge("many-channels", channels=130, size=(3, 3), candidates=["dil_conv_3x3", "max_pool_3x3", "skip_connect"]),
    edge("two-blocks", channels=66, size=(3, 2), candidates=["dil_conv_3x3", "max_pool_3x3", "skip_connect"]),
    edge("many-tiles", channels=3, size=(23, 31), candidates=["dil_conv_3x3", "avg_pool_3x3"], stride=2, batch=3),
]


@pytest.mark.parametrize("case", some(BLOCKS, {"many-channels"}))
@pytest.mark.usefixtures("guarded")
def test_several_blocks_and_parts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """More channels than a block holds; parts with several tiles, with one and with none."""
    monkeypatch.setattr(triton_kernels(), "tiling", (1024, 16, 64, 20))
    assert_agrees(problem(case), "fast")


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


@pytest.mark.parametrize("name", ["size-3x5-s2", "shared-edges"])
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
