"""Hands a cell's tensors to the C++ kernels, as pointers, sizes and strides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from fastnas.ops.compiled import compiled
from fastnas.ops.results import flattened, size
from fastnas.ops.spec import Spec


def forward(
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
    alpha, params, running = alpha.contiguous(), _contiguous(params), _contiguous(running)
    arguments = _arguments(inputs, alpha, params, running, out, saved, statistics, memory)
    compiled(spec).forward(arguments, out.element_size())


def backward(
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
    of_inputs = [torch.empty_like(t) for t in inputs] if needs[0] else []
    # Pooled: allocators give fresh memory back in every step, which costs a small cell more than its arithmetic.
    flat = allocate(size(flattened(alpha, params, needs)), alpha)
    of_params = flat[: size(params)] if needs[2] else flat[:0]
    alpha, params, running = alpha.contiguous(), _contiguous(params), _contiguous(running)
    compiled(spec).backward(
        _arguments(inputs, alpha, params, running, out, saved, statistics, memory),
        _view(grad),
        [_view(t) for t in of_inputs],
        flat[of_params.numel() :].data_ptr() if needs[1] else 0,
        _places(of_params, params) if needs[2] else [],
        out.element_size(),
    )
    return [*of_inputs, flat]


def update_running_stats(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    """Blend the batch's statistics into the running ones."""
    from fastnas import _C

    _C.update_running_stats(
        _pointers(running_mean),
        _pointers(running_var),
        _pointers(num_batches_tracked),
        [t.shape[0] for t in running_mean],
        statistics.data_ptr(),
        momentum,
        counts,
        statistics.element_size(),
    )


def saved_size(spec: Spec, x: Tensor, sizes: Sequence[tuple[int, int]], memory: str) -> Any:
    """Elements that a forward on `x` saves: states that are neither given nor returned, and in "fast" stage outputs.

    The compiled part keeps channels in blocks of its vector width, so a state of C channels counts as the next
    multiple.
    """
    if memory == "none":
        return 0
    block = _block(x.dtype, spec.channels[spec.outputs[0]])

    def elements(state: int) -> Any:
        height, width = sizes[state]
        return x.shape[0] * height * width * (-(-spec.channels[state] // block) * block)

    stages = spec.stage_states if memory == "fast" else []
    return sum(elements(state) for state in spec.inner_states + stages)


def allocate(elements: int, like: Tensor) -> Tensor:
    """What a forward saves, not initialised, in memory that the compiled part keeps from step to step."""
    from fastnas import _C

    return torch.utils.dlpack.from_dlpack(_C.pooled_tensor(elements, like.element_size()))


def release_workspaces() -> None:
    """Give back to the system what the operators keep for their next call, as between two models of different size."""
    from fastnas import _C

    _C.release_workspaces()


@lru_cache(maxsize=64)
def _block(dtype: torch.dtype, channels: int) -> int:
    from fastnas import _C

    return int(_C.block(dtype.itemsize, channels))


def _arguments(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    out: Tensor,
    saved: Tensor,
    statistics: Tensor,
    memory: str,
) -> Any:
    """Addresses only: the caller keeps the tensors alive, and α, params and running contiguous."""
    from fastnas import _C

    return _C.Arguments(
        [_view(t) for t in inputs],
        alpha.data_ptr(),
        _pointers(params),
        _pointers(running),
        _view(out),
        saved.data_ptr(),
        saved.numel(),
        statistics.data_ptr(),
        memory,
        torch.get_num_threads(),
    )


def _view(t: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return t.data_ptr(), tuple(t.shape), t.stride()


def _pointers(tensors: Sequence[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]


def _places(flat: Tensor, like: Sequence[Tensor]) -> list[int]:
    """Addresses of pieces of a flat tensor, one after the other, as large as those of `like`."""
    starts = accumulate([t.numel() for t in like[:-1]], initial=0) if like else ()
    return [flat.data_ptr() + start * flat.element_size() for start in starts]


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]
