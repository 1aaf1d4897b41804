"""Runs a cell on a GPU: packs its tensors, and launches what the plan of its shapes says (docs/gpu.md).

Triton and CUDA differ only in the `Kernels` that they bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from fastnas.ops.compiled import compiled
from fastnas.ops.spec import Spec

if TYPE_CHECKING:
    from fastnas import _C

INPUTS = 4  # bases for given states; if a cell has more, all are packed into the first
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Tiling = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tensors:
    """What the kernels of one call read and write, as csrc/gpu/job.h names it.

    Attributes:
        bases: flat, of the activations' dtype, in the order of `Base`; a dummy where a call has none.
        params: parameters, running statistics and α, float32.
        floats: scratch, float32.
        statistics: (2, Σ C), float32.
        grads: gradients of the parameters and of α, float32.
        table: int64.
    """

    bases: list[Tensor]
    params: Tensor
    floats: Tensor
    statistics: Tensor
    grads: Tensor
    table: Tensor


class Kernels(Protocol):
    """A backend: how it wants its work cut (plan.h, `Tiling`), and how it launches kernels."""

    tiling: Tiling

    def run(self, launches: Sequence[_C.GpuLaunch], tensors: Tensors) -> None:
        """Put all launches, in their order, on the current stream of the tensors' device."""


def allocate(elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A flat tensor, not initialised."""
    return torch.empty(elements, dtype=dtype, device=device)


class Gpu:
    """The operator's implementation by a backend's kernels."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def saved_size(self, spec: Spec, x: Tensor, sizes: Sequence[tuple[int, int]], memory: str) -> Any:
        """Elements that a forward on `x` saves: states neither given nor returned, and in "fast" stage outputs."""
        if memory == "none":
            return 0
        stages = spec.stage_states if memory == "fast" else []
        return sum(
            x.shape[0] * spec.channels[state] * sizes[state][0] * sizes[state][1]
            for state in spec.inner_states + stages
        )

    def allocate(self, elements: int, like: Tensor) -> Tensor:
        """What a forward saves, not initialised."""
        return allocate(elements, like.dtype, like.device)

    def forward(
        self,
        spec: str,
        inputs: Sequence[Tensor],
        alpha: Tensor,
        params: Sequence[Tensor],
        running: Sequence[Tensor],
        memory: str,
        out: Tensor,
        saved: Tensor,
        statistics: Tensor,
    ) -> None:
        """Compute the cell into `out`, `saved` and `statistics`."""
        plan = _forward_plan(spec, inputs[0].shape[0], _sizes(inputs), memory, self._kernels.tiling)
        if memory == "none":  # there is no backward to keep inner states for
            saved = allocate(plan.saved, out.dtype, out.device)
        bases = _bases(inputs, out, saved, allocate(plan.scratch, out.dtype, out.device), None, None)
        self._run(plan, bases, _pack(params, running, alpha), statistics, 0)

    def backward(
        self,
        spec: str,
        grad: Tensor,
        out: Tensor,
        saved: Tensor,
        statistics: Tensor,
        inputs: Sequence[Tensor],
        alpha: Tensor,
        params: Sequence[Tensor],
        running: Sequence[Tensor],
        memory: str,
        needs: Sequence[bool],
    ) -> list[Tensor]:
        """What `results.gradients` splits."""
        wants = (needs[0], needs[1], needs[2])
        plan = _backward_plan(spec, inputs[0].shape[0], _sizes(inputs), memory, self._kernels.tiling, wants)
        grad_inputs = allocate(plan.grad_inputs if needs[0] else 0, out.dtype, out.device)
        scratch = allocate(plan.scratch, out.dtype, out.device)
        bases = _bases(inputs, out, saved, scratch, grad.contiguous(), grad_inputs)
        grads = self._run(plan, bases, _pack(params, running, alpha), statistics, plan.grads)
        of_params = plan.grads - alpha.numel()
        flat = grads[0 if needs[2] else of_params : plan.grads if needs[1] else of_params]
        return [grad_inputs, flat] if needs[0] else [flat]

    def _run(self, plan: _Plan, bases: list[Tensor], params: Tensor, statistics: Tensor, grads: int) -> Tensor:
        device = params.device
        floats = allocate(plan.floats, torch.float32, device)
        tensors = Tensors(bases, params, floats, statistics, allocate(grads, torch.float32, device), plan.table(device))
        self._kernels.run(plan.launches, tensors)
        return tensors.grads


def update_running_stats(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    """Blend the batch's statistics into the running ones, all norms in a few launches; any device."""
    mean, variance = (torch.split(row, [t.shape[0] for t in running_mean]) for row in statistics)
    unbiased = torch._foreach_mul(variance, [count / (count - 1) for count in counts])
    torch._foreach_add_(list(num_batches_tracked), 1)
    # The cumulative average has to know a count that lies on the device.
    factors = [1.0 / int(n) if m < 0 else m for m, n in zip(momentum, num_batches_tracked, strict=True)]
    for factor in set(factors):
        norms = [i for i, f in enumerate(factors) if f == factor]
        for buffers, batch in ((running_mean, mean), (running_var, unbiased)):
            targets = [buffers[i] for i in norms]
            torch._foreach_lerp_(targets, [batch[i].to(t.dtype) for i, t in zip(norms, targets, strict=True)], factor)


def _sizes(inputs: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((t.shape[2], t.shape[3]) for t in inputs)


def _pack(params: Sequence[Tensor], running: Sequence[Tensor], alpha: Tensor) -> Tensor:
    return torch.cat([t.reshape(-1) for t in (*params, *running, alpha)]).float()


def _bases(
    inputs: Sequence[Tensor],
    out: Tensor,
    saved: Tensor,
    scratch: Tensor,
    grad_out: Tensor | None,
    grad_inputs: Tensor | None,
) -> list[Tensor]:
    given = [t.reshape(-1) for t in inputs]
    if len(given) > INPUTS:
        given = [torch.cat(given)]
    given += [given[0]] * (INPUTS - len(given))
    gradients = [out if t is None else t.view(-1) for t in (grad_out, grad_inputs)]
    return [*given, out.view(-1), saved, scratch, *gradients]


class _Plan:
    """A launch plan in Python, with its table on every device that has run it.

    None is ever forgotten: a captured CUDA graph goes on reading its table.
    """

    def __init__(self, plan: _C.GpuPlan) -> None:
        self.saved, self.scratch, self.floats = plan.saved, plan.scratch, plan.floats
        self.grad_inputs, self.grads = plan.grad_inputs, plan.grads
        self.launches = plan.launches
        self._bytes = bytearray(plan.table)
        self._tables: dict[torch.device, Tensor] = {}

    def table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = torch.frombuffer(self._bytes, dtype=torch.int64).to(device)
        return self._tables[device]


@cache
def _forward_plan(spec: str, images: int, sizes: tuple[tuple[int, int], ...], memory: str, tiling: Tiling) -> _Plan:
    return _Plan(compiled(spec).plan_forward(images, sizes, memory, tiling))


@cache
def _backward_plan(
    spec: str,
    images: int,
    sizes: tuple[tuple[int, int], ...],
    memory: str,
    tiling: Tiling,
    wants: tuple[bool, bool, bool],
) -> _Plan:
    return _Plan(compiled(spec).plan_backward(images, sizes, memory, tiling, wants))
