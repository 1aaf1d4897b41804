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


def gradients(inputs: Sequence[Tensor], alpha: Tensor, params: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    """Those of inputs, α and parameters; empty where not needed."""
    given = torch.preserve_format
    # The kernels write a parameter's gradient in row-major order, whatever the parameter's own strides.
    groups = ((inputs, needs[0], given), ([alpha], needs[1], given), (params, needs[2], torch.contiguous_format))
    return [
        torch.empty_like(t, memory_format=layout) if needed else t.new_empty(0)
        for group, needed, layout in groups
        for t in group
    ]


def _memory_format(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
