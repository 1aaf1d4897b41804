"""What a call of a cell returns, not initialised: for the kernels to fill, and for tracing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastnas.ops.spec import Spec


def output(spec: Spec, x: Tensor, size: tuple[int, int], backend: str) -> Tensor:
    """y for a first input `x`; GPU kernels write it dense, the CPU's in the memory format of `x`."""
    shape = (x.shape[0], sum(spec.channels[i] for i in spec.outputs), *size)
    layout = _memory_format(x) if backend == "cpu" else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)


def statistics(spec: Spec, x: Tensor) -> Tensor:
    """(2, Σ C) of the norms that use the batch's."""
    batch = sum(c for c, norm in zip(spec.norm_channels, spec.norms, strict=True) if norm.batch)
    half = x.dtype in (torch.float16, torch.bfloat16)
    return torch.empty((2, batch), dtype=torch.float32 if half else x.dtype, device=x.device)


def split(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Pieces of a flat tensor, one after the other, of the shapes of `like`."""
    pieces = torch.split(flat, [t.numel() for t in like])
    return [piece.view(t.shape) for piece, t in zip(pieces, like, strict=True)]


def empty(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What stands for gradients that nobody asked for."""
    return [t.new_empty(0) for t in tensors]


def traced_gradients(
    inputs: Sequence[Tensor], alpha: Tensor, params: Sequence[Tensor], needs: Sequence[bool], backend: str
) -> list[Tensor]:
    """Those of inputs, α and parameters as the backend returns them: what shares memory there does so here."""
    apart = backend == "cpu"
    flat = alpha.new_empty(sum(t.numel() for t in params) + (0 if apart else alpha.numel()))
    weights = split(flat, params if apart else [*params, alpha])
    alpha_grad = torch.empty_like(alpha) if apart else weights.pop()
    of_inputs = (
        [torch.empty_like(t) for t in inputs]
        if apart
        else split(inputs[0].new_empty(sum(t.numel() for t in inputs)), inputs)
    )
    groups = ((inputs, of_inputs), ([alpha], [alpha_grad]), (params, weights))
    return [t for (like, ours), needed in zip(groups, needs, strict=True) for t in (ours if needed else empty(like))]


def _memory_format(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
