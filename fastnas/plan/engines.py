"""What a call of a cell takes besides its results: from the compiled part itself, which lays it out without computing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from fastnas.ops import cpu, results
from fastnas.ops.compiled import compiled
from fastnas.ops.gpu import Gpu, Kernels
from fastnas.ops.spec import Spec, decode
from fastnas.plan.ledger import Ledger

Shapes = tuple[tuple[int, ...], ...]
WANTS = (True, True, True)  # gradients of inputs, α and parameters: all of them


class Engine(Protocol):
    """A backend as a plan sees it; tensors are on the meta device."""

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, ...]:
        """The cell's output, what it saves, and its statistics."""

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, inputs: Sequence[Tensor], memory: str) -> list[Tensor]:
        """What `results.gradients` splits."""


class CpuEngine:
    """The C++ engine with this many threads.

    What it saves, the gradients of parameters, and its scratch lie in its pool.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, ...]:
        x, sizes = inputs[0], _sizes(spec, inputs)
        out, statistics = results.output(spec, x, sizes[spec.outputs[0]], "cpu"), results.statistics(spec, x)
        with ledger.pooled():
            saved = x.new_empty(cpu.saved_size(spec, x, sizes, memory))
        ledger.call(_cpu_scratch(spec.text, _shapes(inputs), memory, self._threads, "forward"))
        return out, saved, statistics

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, inputs: Sequence[Tensor], memory: str) -> list[Tensor]:
        of_inputs = [torch.empty_like(t) for t in inputs]
        with ledger.pooled():
            flat = inputs[0].new_empty(_weights(spec) + spec.alphas)
        ledger.call(_cpu_scratch(spec.text, _shapes(inputs), memory, self._threads, "backward"))
        return [*of_inputs, flat]


@cache
def _cpu_scratch(text: str, shapes: Shapes, memory: str, threads: int, direction: str) -> int:
    """The most bytes that a call takes from the pool at once."""
    from fastnas import _C

    spec = decode(text)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    sizes = _sizes(spec, inputs)
    out = results.output(spec, inputs[0], sizes[spec.outputs[0]], "cpu")
    # In a rehearsal only numbers for each channel are read and written, wherever they lie.
    values = _values(max(2 * sum(spec.norm_channels), spec.alphas, *map(_elements, spec.parameter_shapes)))
    at = values.data_ptr()
    arguments = _C.Arguments(
        [(at, tuple(t.shape), t.stride()) for t in inputs],
        at,
        [at] * len(spec.parameter_shapes),
        [at] * len(spec.running_shapes),
        (at, tuple(out.shape), out.stride()),
        at,
        int(cpu.saved_size(spec, inputs[0], sizes, memory)),
        at,
        memory,
        threads,
    )
    rehearsal = _C.Rehearsal()
    with rehearsal:
        if direction == "forward":
            compiled(text).forward(arguments, out.element_size())
        else:
            views = [(at, tuple(t.shape), t.stride()) for t in (out, *inputs)]
            gradients = [at] * len(spec.parameter_shapes)
            compiled(text).backward(arguments, views[0], views[1:], at, gradients, out.element_size())
    return rehearsal.take_most()


@cache
def _values(count: int) -> Tensor:
    return torch.zeros(count)


class GpuEngine:
    """A GPU backend, by its launch plans. What a call takes is allocated, and free again after it."""

    def __init__(self, kernels: Kernels) -> None:
        self._gpu, self._tiling = Gpu(kernels), kernels.tiling

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, ...]:
        x, sizes = inputs[0], _sizes(spec, inputs)
        out, statistics = results.output(spec, x, sizes[spec.outputs[0]], "cuda"), results.statistics(spec, x)
        saved = x.new_empty(self._gpu.saved_size(spec, x, sizes, memory))
        plan = compiled(spec.text).plan_forward(x.shape[0], _image_sizes(inputs), memory, self._tiling)
        ledger.allocate(self._scratch(spec, plan, inputs))
        return out, saved, statistics

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, inputs: Sequence[Tensor], memory: str) -> list[Tensor]:
        plan = compiled(spec.text).plan_backward(
            inputs[0].shape[0], _image_sizes(inputs), memory, self._tiling, WANTS
        )
        dense = grad.contiguous()  # a copy where it is not
        of_inputs, flat = dense.new_empty(plan.grad_inputs), dense.new_empty(plan.grads)
        ledger.allocate(self._scratch(spec, plan, inputs))
        return [of_inputs, flat]

    def _scratch(self, spec: Spec, plan: Any, inputs: Sequence[Tensor]) -> int:
        joined = results.size(inputs) if len(inputs) > 4 else 0
        return 4 * int(plan.scratch + plan.floats + joined + _weights(spec) + spec.alphas) + len(plan.table)


def _weights(spec: Spec) -> int:
    return sum(map(_elements, spec.parameter_shapes))


def _elements(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _image_sizes(inputs: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((t.shape[2], t.shape[3]) for t in inputs)


def _sizes(spec: Spec, inputs: Sequence[Tensor]) -> list[tuple[int, int]]:
    return spec.sizes(_image_sizes(inputs))


def _shapes(inputs: Sequence[Tensor]) -> Shapes:
    return tuple(tuple(t.shape) for t in inputs)
