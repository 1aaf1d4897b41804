"""What a call of a cell takes besides its results: from the compiled part, which lays it out without computing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastnas.ops import cpu, results
from fastnas.ops.compiled import compiled
from fastnas.ops.gpu import INPUTS, Gpu, Kernels
from fastnas.ops.spec import Spec, decode
from fastnas.plan.described import floats
from fastnas.plan.ledger import Ledger

if TYPE_CHECKING:
    from fastnas import _C

Shape = tuple[int, int, int, int]
FLOAT = 4  # bytes; networks are planned in float32
_WANTS = (True, True, True)  # gradients of inputs, α and parameters


class Engine(Protocol):
    """A way to compute cells; tensors are on the meta device, in float32, contiguous."""

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, list[Tensor]]:
        """The cell's output, and what is kept for its backward."""

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, shapes: Sequence[Shape], memory: str) -> list[Tensor]:
        """Gradients of the inputs, of these shapes, and in one tensor those of parameters and α."""


class CpuEngine:
    """The C++ engine with this many threads. What it saves, its flat gradients and its scratch lie in its pool."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, list[Tensor]]:
        x, shapes = inputs[0], shapes_of(inputs)
        sizes = spec.sizes(areas(shapes))
        out, statistics = results.output(spec, x, sizes[spec.outputs[0]], "cpu"), results.statistics(spec, x)
        with ledger.pooled():
            saved = floats(cpu.saved_size(spec, x, sizes, memory))
        self._call(ledger, spec, shapes, memory, backward=False)
        return out, _kept(spec, out, saved, statistics, inputs)

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, shapes: Sequence[Shape], memory: str) -> list[Tensor]:
        of_inputs = [floats(*shape) for shape in shapes]
        with ledger.pooled():
            flat = floats(weights(spec) + spec.alphas)
        ledger.keep(len(spec.parameter_shapes))  # each has a gradient of its own, which is a view
        self._call(ledger, spec, tuple(shapes), memory, backward=True)
        return [*of_inputs, flat]

    def _call(self, ledger: Ledger, spec: Spec, shapes: tuple[Shape, ...], memory: str, backward: bool) -> None:
        ledger.pooled_call(_Call(spec.text, shapes, memory, self._threads, backward).rehearsed())


@dataclass(frozen=True)
class _Call:
    """A call of the C++ engine, in float32."""

    text: str
    shapes: tuple[Shape, ...]
    memory: str
    threads: int
    backward: bool

    @cache  # noqa: B019  calls are few, and values
    def rehearsed(self) -> _C.Rehearsal:
        """What it takes from a pool, and gives back."""
        from fastnas import _C

        cell, arguments, gradients = _arguments(self)
        pool = _C.Rehearsal()
        with pool:
            if self.backward:
                cell.backward(arguments, *gradients, FLOAT)  # type: ignore[call-arg]
            else:
                cell.forward(arguments, FLOAT)
        return pool


@cache
def _arguments(call: _Call) -> tuple[_C.Cell, _C.Arguments, tuple[Any, ...]]:
    from fastnas import _C

    spec, shapes = decode(call.text), call.shapes
    sizes = spec.sizes(areas(shapes))
    out = (shapes[0][0], sum(spec.channels[i] for i in spec.outputs), *sizes[spec.outputs[0]])
    saved = int(cpu.saved_size(spec, _Like(shapes[0]), sizes, call.memory))  # type: ignore[arg-type]
    # In a rehearsal only numbers for each channel are read and written, wherever they lie.
    at = _values(max(2 * sum(spec.norm_channels), spec.alphas, *map(prod, spec.parameter_shapes))).ctypes.data
    views = [(at, shape, _strides(shape)) for shape in (out, *shapes)]
    parameters = [at] * len(spec.parameter_shapes)
    arguments = _C.Arguments(
        views[1:], at, parameters, [at] * len(spec.running_shapes), views[0], at, saved, at, call.memory, call.threads
    )
    return compiled(call.text), arguments, (views[0], views[1:], at, parameters)


class _Like:
    """What `cpu.saved_size` reads of a tensor; a tensor itself would count as memory."""

    dtype = torch.float32

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


@cache
def _values(count: int) -> Any:
    return np.zeros(count, np.float32)


def _strides(shape: Shape) -> Shape:
    _, channels, height, width = shape
    return channels * height * width, height * width, width, 1


class GpuEngine:
    """A GPU backend, by its launch plans. What a call takes comes from PyTorch's allocator, and goes back after it."""

    def __init__(self, kernels: Kernels) -> None:
        self._gpu, self._tiling = Gpu(kernels), kernels.tiling

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, list[Tensor]]:
        x, shapes = inputs[0], shapes_of(inputs)
        sizes = spec.sizes(areas(shapes))
        out, statistics = results.output(spec, x, sizes[spec.outputs[0]], "cuda"), results.statistics(spec, x)
        saved = floats(self._gpu.saved_size(spec, x, sizes, memory))
        plan = compiled(spec.text).plan_forward(len(x), areas(shapes), memory, self._tiling)
        ledger.call(_gpu_scratch(spec, plan, shapes))
        return out, _kept(spec, out, saved, statistics, inputs)

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, shapes: Sequence[Shape], memory: str) -> list[Tensor]:
        plan = compiled(spec.text).plan_backward(len(grad), areas(shapes), memory, self._tiling, _WANTS)
        # The gradients of the inputs are parts of one tensor, which lives as long as any of them.
        of_inputs, flat = floats(plan.grad_inputs), floats(plan.grads)
        ledger.call(_gpu_scratch(spec, plan, shapes))
        pieces = torch.split(of_inputs, [prod(shape) for shape in shapes])
        return [*(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)), flat]


def _gpu_scratch(spec: Spec, plan: Any, shapes: Sequence[Shape]) -> int:
    joined = sum(map(prod, shapes)) if len(shapes) > INPUTS else 0
    packed = weights(spec) + spec.alphas
    return FLOAT * int(plan.scratch + plan.floats + joined + packed) + len(plan.table)


def _kept(spec: Spec, out: Tensor, saved: Tensor, statistics: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    read = [t for i, t in enumerate(inputs) if i not in spec.unread_inputs]
    return [*([out] if spec.reads_outputs else []), saved, statistics, *read]


def weights(spec: Spec) -> int:
    """Elements of all parameters."""
    return sum(map(prod, spec.parameter_shapes))


def shapes_of(inputs: Sequence[Tensor]) -> tuple[Shape, ...]:
    """(N, C, H, W) of each."""
    return tuple((t.shape[0], t.shape[1], t.shape[2], t.shape[3]) for t in inputs)


def areas(shapes: Sequence[Shape]) -> tuple[tuple[int, int], ...]:
    """(H, W) of each."""
    return tuple((height, width) for _, _, height, width in shapes)
