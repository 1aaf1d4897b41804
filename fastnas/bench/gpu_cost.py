"""What a launch plan costs a GPU, counted from its table: nothing is run.

Bytes are those that a launch has to move between main memory and the chip: every tensor it reads once, every tensor it
writes once, as if what its blocks share were served by the caches. FLOPs are all that it executes, what is computed
again included; a multiply-add is two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastnas.ops import Spec
from fastnas.ops.compiled import compiled
from fastnas.ops.gpu import Tiling

if TYPE_CHECKING:
    from fastnas import _C

FLOAT = 4
IDENTITY, CONVOLUTION = 3, 0
POOL_TAPS = 9
NEIGHBOURS = 4  # of a pixel that is resampled
MOMENTS = 3  # numbers that a tile leaves of every channel
RUNNING_LAUNCHES = 4  # unbiased variance, counter, means, variances
Row = dict[str, int]


@dataclass(frozen=True)
class Cost:
    """Of one kernel launch."""

    kernel: str
    bytes: int
    flops: int


def plan_cost(plan: _C.GpuPlan, element_size: int) -> list[Cost]:
    """The cost of every launch.

    Args:
        plan: from `Cell.plan_forward` or `Cell.plan_backward`.
        element_size: bytes of an activation, 4 or 2.
    """
    table = _Table(plan)
    return [_LaunchCost(table, launch, element_size).total() for launch in plan.launches]


def call_costs(
    spec: Spec, images: int, inputs: Sequence[tuple[int, int]], memory: str, tiling: Tiling, element_size: int = FLOAT
) -> list[Cost]:
    """Forward and backward of a cell in training, all gradients, with the packing of its parameters and what updates
    its running statistics.

    Args:
        spec: the cell.
        images: N.
        inputs: height and width of every input.
        memory: "fast" or "lean".
        tiling: of the backend.
        element_size: bytes of an activation, 4 or 2.
    """
    cell, sizes = compiled(spec.text), list(inputs)
    forward = cell.plan_forward(images, sizes, memory, tiling)
    backward = cell.plan_backward(images, sizes, memory, tiling, (True, True, True))
    pack = Cost("pack", 2 * FLOAT * sum(math.prod(shape) for shape in spec.parameter_shapes), 0)
    statistics = 4 * FLOAT * sum(spec.norm_channels)
    blend = [Cost("running statistics", statistics, 0)] * RUNNING_LAUNCHES
    return [pack, *plan_cost(forward, element_size), *blend, pack, *plan_cost(backward, element_size)]


class _Table:
    """The rows of a plan's table by name."""

    def __init__(self, plan: _C.GpuPlan) -> None:
        from fastnas import _C

        self.kernels = _C.gpu_kernels()
        self._columns = _C.gpu_columns()
        self._numbers: NDArray[np.int64] = np.frombuffer(plan.table, dtype=np.int64)

    def jobs(self, launch: _C.GpuLaunch) -> list[Row]:
        return [self.job(int(number)) for number in self.numbers(launch.list, launch.count)]

    def job(self, number: int) -> Row:
        return self.row("Job", number * self._columns["Job"]["columns"])

    def row(self, kind: str, at: int) -> Row:
        columns = self._columns[kind]
        return {name: int(self._numbers[at + i]) for name, i in columns.items() if name != "columns"} | {"at": at}

    def reductions(self, launch: _C.GpuLaunch) -> list[Row]:
        size = self._columns["Reduction"]["columns"]
        return [self.row("Reduction", launch.list + i * size) for i in range(launch.count)]

    def numbers(self, at: int, count: int) -> list[int]:
        return [int(number) for number in self._numbers[at : at + count]]

    def view(self, row: Row, kind: str, name: str) -> tuple[int, int]:
        """Base and offset."""
        at = row["at"] + self._columns[kind][name]
        return int(self._numbers[at]), int(self._numbers[at + 1])


class _LaunchCost:
    """Adds up what one launch reads, each tensor once, and what it writes."""

    def __init__(self, table: _Table, launch: _C.GpuLaunch, element_size: int) -> None:
        self._table, self._launch, self._element = table, launch, element_size
        self._read: dict[tuple[int, int], int] = {}
        self._other = self._flops = 0

    def total(self) -> Cost:
        name = self._table.kernels[self._launch.kernel]
        getattr(self, f"_{name}")()
        return Cost(name, sum(self._read.values()) + self._other, self._flops)

    def _reads(self, row: Row, name: str, elements: int, kind: str = "Job") -> None:
        base, offset = self._table.view(row, kind, name)
        if base >= 0:
            self._read[base, offset] = elements * self._element

    def _writes(self, row: Row, name: str, elements: int, kind: str = "Job") -> None:
        if self._table.view(row, kind, name)[0] >= 0:
            self._other += elements * self._element

    def _floats(self, count: int) -> None:
        self._other += count * FLOAT

    def _input(self, job: Row) -> int:
        return self._launch.images * job["in_channels"] * job["in_height"] * job["in_width"]

    def _gathered(self, job: Row) -> int:
        return self._launch.images * job["in_channels"] * job["out_height"] * job["out_width"]

    def _output(self, job: Row) -> int:
        return self._launch.images * job["out_channels"] * job["out_height"] * job["out_width"]

    def _sums(self, job: Row) -> int:
        return 2 * job["out_channels"] * job["sums_count"]

    def _tile_moments(self, job: Row) -> int:
        pixels = self._launch.images * job["out_height"] * job["out_width"]
        return MOMENTS * job["out_channels"] * -(-pixels // self._launch.tile)

    def _weights(self, job: Row) -> int:
        if job["kind"] != CONVOLUTION:
            return 0
        taps = job["kernel"] ** 2 if job["depthwise"] >= 0 else 0
        return job["in_channels"] * (job["out_channels"] + taps)

    def _gather_flops(self, job: Row) -> int:
        if job["kind"] != CONVOLUTION:
            taps = POOL_TAPS
        elif job["resample"]:
            taps = NEIGHBOURS
        else:
            taps = job["kernel"] ** 2 if job["depthwise"] >= 0 else 0
        return 2 * taps * self._gathered(job)

    def _product_flops(self, job: Row) -> int:
        return 2 * self._output(job) * job["in_channels"] if job["kind"] == CONVOLUTION else 0

    def _compute(self, job: Row) -> None:
        """u from a job's input."""
        self._reads(job, "input", self._input(job))
        self._floats(self._weights(job))
        self._flops += self._gather_flops(job) + self._product_flops(job) if job["kind"] != IDENTITY else 0

    def _moments(self) -> None:
        for job in self._table.jobs(self._launch):
            self._compute(job)
            self._writes(job, "output", self._output(job))
            if job["moments"] >= 0:
                self._floats(self._tile_moments(job))
                self._flops += 4 * self._output(job)

    def _norms(self) -> None:
        for job in self._table.jobs(self._launch):
            self._floats(6 * job["out_channels"] + (self._tile_moments(job) if job["moments"] >= 0 else 0))

    def _apply(self) -> None:
        state = self._table.row("State", self._launch.state)
        elements = self._launch.images * state["channels"] * state["height"] * state["width"]
        self._writes(state, "value", elements * (2 if self._launch.accumulate else 1), "State")
        for job in self._table.jobs(self._launch):
            if self._table.view(job, "Job", "output")[0] >= 0:
                self._reads(job, "output", self._output(job))
            else:
                self._compute(job)
            self._floats(3 * job["out_channels"])
            self._flops += 2 * self._output(job)

    def _grad_sums(self) -> None:
        for job in self._table.jobs(self._launch):
            self._compute(job)
            self._reads(job, "grad", self._output(job))
            self._floats(self._sums(job))
            self._flops += 3 * self._output(job)

    def _coefficients(self) -> None:
        for job in self._table.jobs(self._launch):
            self._floats(self._sums(job) + 10 * job["out_channels"])

    def _stage_back(self) -> None:
        for job in self._table.jobs(self._launch):
            self._reads(job, "input", self._input(job))
            self._reads(job, "output", self._output(job))
            self._reads_grad(job)
            self._writes(job, "grad_gathered", self._gathered(job))
            self._floats(self._weights(job))
            if job["before"] >= 0:
                self._floats(self._sums(self._table.job(job["before"])))
                self._flops += 2 * self._gather_flops(job)
            again = self._table.view(job, "Job", "output")[0] < 0
            self._flops += 4 * self._output(job) + self._product_flops(job) * (2 if again else 1)
            self._flops += self._gather_flops(job) if again or job["weight_sums"] >= 0 else 0
            self._flops += self._gather_flops(job) if job["rectify"] else 0
            if job["weight_sums"] >= 0:
                self._floats(self._launch.grid_x * self._weights(job))
                self._flops += self._product_flops(job) + self._gather_flops(job)

    def _reads_grad(self, job: Row) -> None:
        if job["next"] < 0:
            self._reads(job, "grad", self._output(job))
            return
        following = self._table.job(job["next"])
        self._reads(following, "grad_gathered", self._gathered(following))
        self._flops += self._gather_flops(following)

    def _source_back(self) -> None:
        state = self._table.row("State", self._launch.state)
        elements = self._launch.images * state["channels"] * state["height"] * state["width"]
        self._writes(state, "grad", elements, "State")
        self._reads(state, "given", elements, "State")
        self._reads(state, "value", elements, "State")
        for job in self._table.jobs(self._launch):
            self._reads(job, "grad" if job["kind"] == IDENTITY else "grad_gathered", self._gathered(job))
            self._flops += self._gather_flops(job)
            for number in self._table.numbers(job["members"], job["member_count"]):
                self._reads(self._table.job(number), "grad", self._output(job))
                self._flops += 2 * POOL_TAPS * self._output(job)

    def _reduce(self) -> None:
        for row in self._table.reductions(self._launch):
            self._floats((row["parts"] + 1 + row["accumulate"]) * row["size"])
            self._flops += row["parts"] * row["size"]
