"""Cells that are described rather than computed, in place of those of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastnas.ops.spec import Spec
from fastnas.plan.engines import Engine, shapes_of, weights
from fastnas.plan.ledger import Ledger


class PlannedCell:
    """Stands in for a `fastnas.nn.fused.FusedCell`: gives tensors without values, and counts memory in a ledger.

    All its parameters are one tensor.

    Args:
        spec: what it computes.
        buffers: bytes of its buffers.
    """

    def __init__(self, spec: Spec, buffers: int) -> None:
        self.spec, self.buffers = spec, buffers
        self.weights = nn.Parameter(torch.empty(weights(spec), device="meta"))
        self._how: tuple[Ledger, Engine, str]

    def use(self, ledger: Ledger, engine: Engine, memory: str) -> None:
        """What follows is computed in this memory mode, by this engine, and counted in this ledger."""
        self._how = ledger, engine, memory

    def __call__(self, inputs: Sequence[Tensor], alpha: Tensor) -> Tensor:
        out: Tensor = _Call.apply(self.spec, *self._how, alpha, self.weights, *inputs)  # type: ignore[no-untyped-call]
        return out


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: Spec,
        ledger: Ledger,
        engine: Engine,
        memory: str,
        alpha: Tensor,
        weights: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        out, ctx.kept = engine.forward(ledger, spec, inputs, memory)
        ctx.how, ctx.shapes = (spec, ledger, engine, memory), shapes_of(inputs)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        spec, ledger, engine, memory = ctx.how
        *of_inputs, flat = engine.backward(ledger, spec, grad, ctx.shapes, memory)
        ctx.kept = None  # as autograd lets go of what it saved; to save it there is an operator for each tensor
        return (None, None, None, None, None, flat[: -spec.alphas], *of_inputs)
