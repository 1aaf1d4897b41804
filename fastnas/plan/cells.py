"""Networks whose cells are described rather than computed: one module for all cells that are alike, no parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastnas.ops import results
from fastnas.ops.spec import Spec
from fastnas.plan.engines import Engine
from fastnas.plan.ledger import Ledger


class PlannedCell:
    """Stands in for a `fastnas.nn.fused.FusedCell`: its tensors without their values, its memory in a ledger.

    All its parameters are one tensor, and so are their gradients, as the engine allocates them.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        count = sum(torch.Size(shape).numel() for shape in spec.parameter_shapes)
        self.weights = nn.Parameter(torch.empty(count, device="meta"))
        self._how: tuple[Ledger, Engine, str]

    def use(self, ledger: Ledger, engine: Engine, memory: str) -> None:
        """What follows is computed in this memory mode, by this engine, and counted in this ledger."""
        self._how = ledger, engine, memory

    def __call__(self, inputs: Sequence[Tensor], alpha: Tensor) -> Tensor:
        out: Tensor = _Call.apply(self, alpha, self.weights, *inputs)  # type: ignore[no-untyped-call]
        return out

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        ledger, engine, memory = self._how
        return engine.forward(ledger, self.spec, inputs, memory)

    def backward(self, grad: Tensor, alpha: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        ledger, engine, memory = self._how
        returned = engine.backward(ledger, self.spec, grad, inputs, memory)
        return results.gradients(returned, inputs, alpha, [self.weights], [True, True, True])


class _Call(torch.autograd.Function):
    """As the operator's own (fastnas/ops/operator.py), it keeps output, saved tensor, statistics, α and inputs."""

    @staticmethod
    def forward(ctx: Any, cell: PlannedCell, alpha: Tensor, weights: Tensor, *inputs: Tensor) -> Tensor:
        ctx.cell = cell
        out, saved, statistics = cell.forward(inputs)
        ctx.save_for_backward(out, saved, statistics, alpha, *inputs)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        _, _, _, alpha, *inputs = ctx.saved_tensors
        *of_inputs, of_alpha, of_weights = ctx.cell.backward(grad, alpha, inputs)
        return (None, of_alpha, of_weights, *of_inputs)
