"""The cell as a PyTorch operator: schema, fake kernel, autograd formula.

`fastnas::cell` returns the result, what it saved for its backward, and the batch's statistics;
`fastnas::cell_backward` is its hand-written derivative; `fastnas::update_running_stats` is what `nn.BatchNorm2d` does
to its buffers. The split follows from `register_autograd`, which refuses schemas that mutate an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastnas.ops import cpu, reference
from fastnas.ops.backends import why_not_cpu
from fastnas.ops.spec import decode


@torch.library.custom_op("fastnas::cell", mutates_args=(), device_types="cpu")
def cell(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `fastnas.ops.mixed_cell`; `memory` is "fast", "lean", or "none" where no backward follows."""
    out, saved, statistics = _outputs(inputs, spec, memory)
    cpu.forward(spec, inputs, alpha, params, running, memory, out, saved, statistics)
    return out, saved, statistics


@cell.register_fake
def _(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(inputs, spec, memory)


@torch.library.custom_op("fastnas::cell_backward", mutates_args=(), device_types="cpu")
def cell_backward(
    grad: Tensor,
    out: Tensor,
    saved: Tensor,
    statistics: Tensor,
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of inputs, α and parameters, in this order. `needs` says which; the others come back empty."""
    grads = _grads(inputs, alpha, params, needs)
    cpu.backward(spec, grad, out, saved, statistics, inputs, alpha, params, running, memory, needs, grads)
    return grads


@cell_backward.register_fake
def _(
    grad: Tensor,
    out: Tensor,
    saved: Tensor,
    statistics: Tensor,
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    return _grads(inputs, alpha, params, needs)


@torch.library.custom_op(
    "fastnas::update_running_stats",
    mutates_args=("running_mean", "running_var", "num_batches_tracked"),
)
def update_running_stats(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    """Blend the batch's statistics into the buffers of each norm, as `nn.BatchNorm2d` does.

    Args:
        running_mean, running_var: (C,) for each norm; the variance becomes unbiased.
        num_batches_tracked: () int64 for each norm.
        statistics: (2, Σ C), means and biased variances.
        momentum: for each norm; a negative one stands for `None`, the cumulative average.
        counts: values per channel that each norm saw.
    """
    update = reference.update_running_stats if why_not_cpu(statistics) else cpu.update_running_stats
    update(running_mean, running_var, num_batches_tracked, statistics, momentum, counts)


@update_running_stats.register_fake
def _(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    return None


def _outputs(inputs: Sequence[Tensor], text: str, memory: str) -> tuple[Tensor, Tensor, Tensor]:
    spec, x = decode(text), inputs[0]
    sizes = spec.sizes([(t.shape[2], t.shape[3]) for t in inputs])
    height, width = sizes[spec.outputs[0]]
    out = torch.empty(
        (x.shape[0], sum(spec.channels[i] for i in spec.outputs), height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=_memory_format(x),
    )
    saved = x.new_empty(cpu.saved_size(spec, x, sizes, memory))
    batch = sum(c for c, norm in zip(spec.norm_channels, spec.norms, strict=True) if norm.batch)
    return out, saved, x.new_empty((2, batch))


def _memory_format(x: Tensor) -> torch.memory_format:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _grads(inputs: Sequence[Tensor], alpha: Tensor, params: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    given = torch.preserve_format
    # The kernels write a parameter's gradient in row-major order, whatever the parameter's own strides.
    groups = ((inputs, needs[0], given), ([alpha], needs[1], given), (params, needs[2], torch.contiguous_format))
    return [
        torch.empty_like(t, memory_format=layout) if needed else t.new_empty(0)
        for group, needed, layout in groups
        for t in group
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    states, alpha, params, running, ctx.spec, ctx.memory = inputs
    out, saved, statistics = output
    ctx.lengths = (len(states), len(params))
    ctx.mark_non_differentiable(saved, statistics)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(out, saved, statistics, alpha, *states, *params, *running)


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
    out, saved, statistics, alpha, *rest = ctx.saved_tensors
    states, params = ctx.lengths
    inputs, weights, running = rest[:states], rest[states : states + params], rest[states + params :]
    # A list counts as needed when any of its tensors is.
    needs = [grad is not None and _any(flag) for flag in ctx.needs_input_grad[:3]]
    grads: list[Tensor | None] = [None] * (states + 1 + params)
    if grad is not None:
        grads = list(
            cell_backward(grad, out, saved, statistics, inputs, alpha, weights, running, ctx.spec, ctx.memory, needs)
        )
    return (
        grads[:states] if needs[0] else [None] * states,
        grads[states] if needs[1] else None,
        grads[states + 1 :] if needs[2] else [None] * params,
        [None] * len(running),
        None,
        None,
    )


def _any(flag: Any) -> bool:
    return any(flag) if isinstance(flag, list | tuple) else bool(flag)


def _refuse(ctx: Any, *grads: Any) -> None:
    raise RuntimeError(
        "fastnas computes first derivatives only: a gradient that went through its backward cannot be differentiated "
        "again. "
        "Second-order DARTS uses finite differences; for true second derivatives use backend='reference'."
    )


cell.register_autograd(_backward, setup_context=_save)
cell_backward.register_autograd(_refuse)
