"""What a call of a cell returns, not initialised: for the kernels to fill, and for tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    """Pieces of a flat tensor, one after the other, of the shapes and dtypes of `like`."""
    pieces = torch.split(flat, [t.numel() for t in like])
    views = [piece.view(t.shape) for piece, t in zip(pieces, like, strict=True)]
    return [view if view.dtype is t.dtype else view.to(t.dtype) for view, t in zip(views, like, strict=True)]


def size(tensors: Sequence[Tensor]) -> Any:
    """Elements of all of them."""
    return sum(t.numel() for t in tensors)


def flattened(alpha: Tensor, params: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    """Those whose gradients a backward returns in one flat tensor, in its order."""
    return [*(params if needs[2] else []), *([alpha] if needs[1] else [])]


def backward(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    statistics: Tensor,
    needs: Sequence[bool],
    backend: str,
) -> list[Tensor]:
    """What `fastnas::cell_backward` returns; see `gradients`."""
    flat = statistics.new_empty(size(flattened(alpha, params, needs)))
    if not needs[0]:
        return [flat]
    if backend == "cpu":
        return [*map(torch.empty_like, inputs), flat]
    return [inputs[0].new_empty(size(inputs)), flat]


def gradients(
    returned: Sequence[Tensor],
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Those of inputs, α and parameters, from what `fastnas::cell_backward` returned.

    An operator's results must not share memory (PyTorch), so what kernels compute in one piece is split here: the
    gradients of weights, on a GPU those of the inputs as well.
    """
    *of_inputs, flat = returned
    if needs[0] and of_inputs[0].dim() == 1:
        of_inputs = split(of_inputs[0], inputs)
    weights = split(flat, flattened(alpha, params, needs))
    of_alpha = weights.pop() if needs[1] else None
    return [
        *(of_inputs if needs[0] else [None] * len(inputs)),
        of_alpha,
        *(weights if needs[2] else [None] * len(params)),
    ]


def _memory_format(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
