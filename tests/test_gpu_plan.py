"""Launch plans, and what they are counted to cost, which needs no GPU."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import gpu_cost
import gpu_step
import numpy as np
import pytest
import torch
from operator_cases import CASES, Case, cell_spec, trellis_spec
from rich.console import Console

from fastnas import _C
from fastnas.bench.gpu_cost import _LaunchCost, _Table, call_costs
from fastnas.ops import DARTS_CANDIDATES, Norm, Spec, gpu
from fastnas.ops.compiled import compiled
from fastnas.ops.cuda import CudaKernels
from fastnas.ops.functional import edge_spec

TILING = CudaKernels.tiling
ALL = (True, True, True)
VIEWS = {"Job": ("input", "output", "grad", "grad_gathered"), "State": ("value", "grad", "given")}


def plans(spec: Spec, batch: int, sizes: tuple[tuple[int, int], ...], memory: str) -> list[_C.GpuPlan]:
    cell = compiled(spec.text)
    return [
        cell.plan_forward(batch, sizes, memory, TILING),
        cell.plan_backward(batch, sizes, memory, TILING, ALL),
    ]


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_launches_do_not_depend_on_how_many_candidates_an_edge_has(memory: str) -> None:
    counts = set()
    for candidates in (("max_pool_3x3", "skip_connect", "sep_conv_3x3"), DARTS_CANDIDATES, DARTS_CANDIDATES * 3):
        spec = cell_spec(8, steps=4, candidates=candidates)
        counts.add(tuple(len(plan.launches) for plan in plans(spec, 2, ((8, 8), (8, 8)), memory)))
    assert len(counts) == 1


@pytest.mark.parametrize(("refused", "expected"), [(None, 0), (2, 719)])
def test_launches_reach_the_driver_until_one_is_refused(refused: int | None, expected: int) -> None:
    launches = plans(cell_spec(8, steps=2), 2, ((8, 8), (8, 8)), "fast")[0].launches
    calls: list[tuple[object, ...]] = []
    given = (ctypes.c_longlong * 2)(7, 8)

    def launch_kernel(function: int, *rest: Any) -> int:
        *sizes, stream, arguments, _ = rest
        numbers = ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_int))
        calls.append((function, sizes, stream, arguments[0] == ctypes.addressof(given), numbers[:7]))
        return 719 if len(calls) - 1 == refused else 0

    kind = ctypes.CFUNCTYPE(
        ctypes.c_int,
        ctypes.c_void_p,
        *[ctypes.c_uint] * 7,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_void_p,
    )
    driver = kind(launch_kernel)
    address = ctypes.cast(driver, ctypes.c_void_p).value or 0
    functions = [100 + kernel for kernel in range(len(_C.gpu_kernels()))]
    assert _C.gpu_launch(address, functions, launches, ctypes.addressof(given), 128, 5) == expected
    assert calls == [
        (
            functions[each.kernel],
            [each.grid_x, each.grid_y, 1, 128, 1, 1, 0],
            5,
            True,
            [each.kernel, each.grid_x, each.grid_y, each.list, each.count, each.state, each.tile],
        )
        for each in (launches if refused is None else launches[: refused + 1])
    ]


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_launches_of_a_trellis_do_not_depend_on_its_candidates(memory: str) -> None:
    counts = set()
    for candidates in (("max_pool_3x3", "skip_connect", "sep_conv_3x3"), DARTS_CANDIDATES, DARTS_CANDIDATES * 3):
        spec = trellis_spec(8, (40, 20, 40, 80), 5, candidates=candidates)
        sizes = ((9, 9), (17, 17), (9, 9), (5, 5))
        counts.add(tuple(len(plan.launches) for plan in plans(spec, 2, sizes, memory)))
    assert len(counts) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_every_gradient_is_written_once_and_then_added_to(case: Case, memory: str) -> None:
    plan, columns = plans(case.spec, case.batch, case.sizes, memory)[1], _C.gpu_columns()["Reduction"]
    table = np.frombuffer(plan.table, dtype=np.int64)
    written = np.zeros(plan.grads, dtype=bool)
    for launch in plan.launches:
        if _C.gpu_kernels()[launch.kernel] != "reduce":
            continue
        before = written.copy()
        for at in range(launch.list, launch.list + launch.count * columns["columns"], columns["columns"]):
            place, size, add = (int(table[at + columns[name]]) for name in ("place", "size", "accumulate"))
            here = slice(place, place + size)
            assert (before[here] == bool(add)).all()
            assert (written[here] == before[here]).all(), "two rows of one launch write the same"
            written[here] = True
    assert written.all()


def test_a_sum_that_no_backward_reads_is_not_saved() -> None:
    case = next(case for case in CASES if case.name == "trellis")
    forward, backward = plans(case.spec, case.batch, case.sizes, "lean")
    areas = [height * width for height, width in case.spec.sizes(list(case.sizes))]
    inner = sum(case.spec.channels[s] * areas[s] for s in case.spec.inner_states)
    assert forward.saved == backward.saved == case.batch * inner
    assert len(case.spec.inner_states) == len(areas) - case.spec.inputs - len(case.spec.outputs) - 2


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_a_backward_reads_no_value_that_is_not_kept(memory: str) -> None:
    out, read_outputs = gpu.INPUTS, 0  # the number of the output's tensor follows those of the inputs
    for case in (case for case in CASES if len(case.sizes) <= gpu.INPUTS):
        plan = plans(case.spec, case.batch, case.sizes, memory)[1]
        table, bases = _Table(plan), set()
        for launch in plan.launches:
            counted = _LaunchCost(table, launch, element_size=4)
            counted.total()
            bases |= {base for base, _ in counted._read}
        assert not bases & case.spec.unread_inputs
        assert case.spec.reads_outputs or out not in bases
        read_outputs += out in bases
    assert read_outputs > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_every_view_lies_in_its_tensor(case: Case, memory: str) -> None:
    spec, columns = case.spec, _C.gpu_columns()
    height, width = spec.sizes(list(case.sizes))[spec.outputs[0]]
    out = case.batch * sum(spec.channels[i] for i in spec.outputs) * height * width
    inputs = [case.batch * spec.channels[i] * h * w for i, (h, w) in enumerate(case.sizes)]
    inputs = [sum(inputs)] if len(inputs) > gpu.INPUTS else inputs
    for plan in plans(spec, case.batch, case.sizes, memory):
        sizes = [*inputs, *[0] * (gpu.INPUTS - len(inputs)), out, plan.saved, plan.scratch, out, plan.grad_inputs]
        table = np.frombuffer(plan.table, dtype=np.int64)
        seen = 0
        for kind, at in rows(plan, columns, len(spec.channels)):
            row = {name: int(table[at + place]) for name, place in columns[kind].items() if name != "columns"}
            for view in VIEWS[kind]:
                base, offset, image = (int(n) for n in table[at + columns[kind][view] :][:3])
                if base >= 0:
                    seen += 1
                    last = offset + (case.batch - 1) * image + elements(kind, view, row)
                    assert 0 <= offset < last <= sizes[base], (kind, view)
        assert seen


def rows(plan: _C.GpuPlan, columns: dict[str, Any], states: int) -> list[tuple[str, int]]:
    job, state = columns["Job"]["columns"], columns["State"]["columns"]
    jobs = [("Job", i * job) for i in range(plan.jobs)]
    return jobs + [("State", plan.jobs * job + i * state) for i in range(states)]


def elements(kind: str, view: str, row: dict[str, int]) -> int:
    """Of one image."""
    if kind == "State":
        return row["channels"] * row["height"] * row["width"]
    if view == "input":
        return row["in_channels"] * row["in_height"] * row["in_width"]
    return row["in_channels" if view == "grad_gathered" else "out_channels"] * row["out_height"] * row["out_width"]


def test_a_plan_is_a_function_of_its_arguments() -> None:
    spec = cell_spec(8, steps=4, reduction=True)
    first, second = (plans(spec, 2, ((8, 8), (8, 8)), "lean") for _ in range(2))
    assert [plan.table for plan in first] == [plan.table for plan in second]


def test_a_lean_call_needs_scratch_for_one_source_at_a_time() -> None:
    """Twice the nodes: twice the edges that leave the busiest state, not four times the edges of the cell."""
    scratch = [plans(cell_spec(8, steps=steps), 2, ((8, 8), (8, 8)), "lean")[0].scratch for steps in (3, 6)]
    assert scratch[1] == 2 * scratch[0]


def test_outputs_must_be_distinct() -> None:
    edge = edge_spec(4, ("skip_connect",), 1, Norm())
    twice = Spec(edge.channels, 1, edge.edges, (1, 1), ())
    with pytest.raises(ValueError, match="must be distinct"):
        plans(twice, 2, ((4, 4),), "fast")


def test_a_darts_cell_moves_an_eighth_of_what_stock_moves_in_a_twentieth_of_the_launches() -> None:
    counts = gpu_cost.cell_counts(16, 32, 64)
    stock, fast = (counts[name] for name in (gpu_cost.STOCK, gpu_cost.FAST))
    assert sum(cost.bytes for cost in fast) * 8 <= sum(cost.bytes for cost in stock)
    assert len(fast) * 20 <= len(stock)


@pytest.mark.thorough
def test_a_layer_of_a_trellis_moves_an_eighth_of_what_stock_moves_in_a_twentieth_of_the_launches() -> None:
    counts = gpu_cost.trellis_counts(8, 321, 2)
    stock, fast = (counts[name] for name in (gpu_cost.STOCK, gpu_cost.FAST))
    assert sum(cost.bytes for cost in fast) * 8 <= sum(cost.bytes for cost in stock)
    assert len(fast) * 20 <= len(stock)


def test_costs_of_one_convolution_by_hand() -> None:
    """One dilated 3×3 candidate, C=16, two images of 4×4, one tile of 32 pixels."""
    spec = edge_spec(16, ("dil_conv_3x3",), 1, Norm())
    costs = {c.kernel: c for c in call_costs(spec, 2, [(4, 4)], "fast", (2048, 16, 64, 1))}
    x, weights, sums = 2 * 16 * 16, 16 * 16 + 16 * 9, 2 * 16
    # u stays in its state's place until it is normed; a channel has three numbers.
    assert costs["moments"].bytes == 4 * (2 * x + weights + 3 * 16)
    assert costs["apply"].bytes == 4 * (2 * x + 3 * 16)
    assert costs["grad_sums"].bytes == 4 * (2 * x + weights + sums)
    assert costs["stage_back"].bytes == 4 * (3 * x + 2 * weights)
    assert costs["source_back"].bytes == 4 * 3 * x
    assert costs["reduce"].bytes == 4 * (2 * weights + 2)  # and ∂α
    assert costs["stage_back"].flops == 4 * x + 3 * 2 * 16 * x + 2 * 2 * 9 * x


def test_counts_are_printed_written_and_drawn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ["gpu_cost.py", "--quick", "--json", str(tmp_path / "c.json"), "--picture", str(tmp_path / "c")]
    monkeypatch.setattr("sys.argv", words)
    gpu_cost.main()
    assert "nothing here was measured" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["counts"]
    assert (tmp_path / "c.svg").stat().st_size
    assert (tmp_path / "c.png").stat().st_size


def test_the_gpu_benchmark_measures_every_network() -> None:
    setting = gpu_step.Setting(4, 3, 8, 2)
    found = gpu_step.measure(setting, torch.device("cpu"), "auto", 2)
    assert set(found) == set(gpu_step.NAMES)
    assert all(len(figures.seconds) == 2 for figures in found.values())
    Console().print(gpu_step.table(setting, found))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_benchmark_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_step.py"])
    gpu_step.main()
    assert "no CUDA device" in capsys.readouterr().out
