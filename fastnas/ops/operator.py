"""The cell as a PyTorch operator: schema, fake kernel, autograd formula.

`fastnas::cell` returns the result, what it saved for its backward, and the batch's statistics;
`fastnas::cell_backward` is its hand-written derivative; `fastnas::update_running_stats` is what `nn.BatchNorm2d` does
to its buffers, apart, so that the cell itself mutates nothing.

The first two are registered with `torch.library.Library` rather than `torch.library.custom_op`, which costs two
milliseconds a call with the some 170 parameters of a cell (it flattens and compares every argument).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fastnas.ops import cpu, gpu, results
from fastnas.ops.backends import implementation, why_not_cpu
from fastnas.ops.spec import decode

_library: Any = torch.library.Library("fastnas", "DEF")  # type: ignore[no-untyped-call]
_CALL = "Tensor[] inputs, Tensor alpha, Tensor[] params, Tensor[] running, str spec, str memory, str backend"
_library.define(f"cell({_CALL}) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"cell_backward(Tensor grad, Tensor out, Tensor saved, Tensor statistics, {_CALL}, bool[] needs) -> Tensor[]"
)
_library.define(
    "update_running_stats(Tensor(a!)[] running_mean, Tensor(b!)[] running_var, Tensor(c!)[] num_batches_tracked, "
    "Tensor statistics, float[] momentum, int[] counts) -> ()"
)
cell = torch.ops.fastnas.cell.default
"""See `fastnas.ops.mixed_cell`; `memory` may be "none", where no backward follows; `backend` is not "auto"."""
cell_backward = torch.ops.fastnas.cell_backward.default
"""Gradients of inputs, α and parameters, as `results.gradients` splits them; `needs` says which of the three."""
update_running_stats = torch.ops.fastnas.update_running_stats.default
"""Blend the batch's statistics into the buffers of each norm, as `nn.BatchNorm2d` does.

Args:
    running_mean, running_var: (C,) for each norm; the variance becomes unbiased.
    num_batches_tracked: () int64 for each norm.
    statistics: (2, Σ C), means and biased variances.
    momentum: for each norm; a negative one stands for `None`, the cumulative average.
    counts: values per channel that each norm saw.
"""


@torch.library.impl(_library, "cell", "CPU")
@torch.library.impl(_library, "cell", "CUDA")
def _cell(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    out, elements, statistics = _outputs(inputs, spec, memory, backend)
    run = implementation(backend)
    saved = run.allocate(elements, out)
    run.forward(spec, inputs, alpha, params, running, memory, out, saved, statistics)
    return out, saved, statistics


@torch.library.register_fake("fastnas::cell", lib=_library)  # type: ignore[untyped-decorator]
def _(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    out, elements, statistics = _outputs(inputs, spec, memory, backend)
    return out, out.new_empty(elements), statistics


@torch.library.impl(_library, "cell_backward", "CPU")
@torch.library.impl(_library, "cell_backward", "CUDA")
def _cell_backward(
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
    backend: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    run = implementation(backend).backward
    grads: list[Tensor] = run(spec, grad, out, saved, statistics, inputs, alpha, params, running, memory, needs)
    return grads


@torch.library.register_fake("fastnas::cell_backward", lib=_library)  # type: ignore[untyped-decorator]
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
    backend: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    return results.backward(inputs, alpha, params, statistics, needs, backend)


class _Cell(torch.autograd.Function):
    """The derivative of `fastnas::cell`. Lists are flattened, since autograd sees no tensor inside a list."""

    @staticmethod
    def forward(
        ctx: Any,
        spec: str,
        memory: str,
        backend: str,
        lengths: tuple[int, int],
        update: Callable[[Tensor], None] | None,
        alpha: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.how, ctx.lengths = (spec, memory, backend), lengths
        inputs, params, running = _split(tensors, lengths)
        out, saved, statistics = _below_autograd(cell, _cell, inputs[0])(inputs, alpha, params, running, *ctx.how)
        if update is not None:
            update(statistics)
        ctx.mark_non_differentiable(saved, statistics)
        ctx.set_materialize_grads(False)
        described = decode(spec)
        kept = [_unread(t) if i in described.unread_inputs else t for i, t in enumerate(tensors)]
        ctx.save_for_backward(out if described.reads_outputs else _unread(out), saved, statistics, alpha, *kept)
        return out, saved, statistics

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
        out, saved, statistics, alpha, *tensors = ctx.saved_tensors
        if grad is None:
            return (None,) * (len(tensors) + 6)
        inputs, params, running = _split(tensors, ctx.lengths)
        # A list counts as needed when any of its tensors is.
        needed = [any(flags) for flags in _split(ctx.needs_input_grad[6:], ctx.lengths)]
        needs = [needed[0], ctx.needs_input_grad[5], needed[1]]
        run = cell_backward if torch.is_grad_enabled() else _below_autograd(cell_backward, _cell_backward, grad)
        returned = run(grad, out, saved, statistics, inputs, alpha, params, running, *ctx.how, needs)
        grads = results.gradients(returned, inputs, alpha, params, needs)
        of_alpha = grads.pop(len(inputs))
        return (None, None, None, None, None, of_alpha, *grads, *([None] * len(running)))


def _unread(t: Tensor) -> Tensor:
    """What stands for a tensor of which a backward reads the shape alone, and keeps none of its memory."""
    return t.new_empty(1).expand(t.shape)


@torch.library.impl(_library, "cell", "Autograd")
def differentiable_cell(
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor],
    spec: str,
    memory: str,
    backend: str,
    update: Callable[[Tensor], None] | None = None,
) -> Any:
    """`cell` with its derivative; `update` is called with the statistics before anything is saved for backward."""
    if memory == "none":
        returned = _below_autograd(cell, _cell, inputs[0])(inputs, alpha, params, running, spec, memory, backend)
        if update is not None:
            update(returned[2])
        return returned
    return _Cell.apply(  # type: ignore[no-untyped-call]
        spec, memory, backend, (len(inputs), len(params)), update, alpha, *inputs, *params, *running
    )


class _CellBackward(torch.autograd.Function):
    """The derivative of `fastnas::cell_backward`: there is none."""

    @staticmethod
    def forward(ctx: Any, call: Callable[..., list[Tensor]], *tensors: Tensor) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(call(*tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "fastnas computes first derivatives only: a gradient that went through its backward cannot be "
            "differentiated again. "
            "Second-order DARTS uses finite differences; for true second derivatives use backend='reference'."
        )


@torch.library.impl(_library, "cell_backward", "Autograd")
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
    backend: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    def call(grad: Tensor, out: Tensor, saved: Tensor, statistics: Tensor, alpha: Tensor, *lists: Tensor) -> Any:
        inputs, params, running = _split(lists, lengths)
        return cell_backward(grad, out, saved, statistics, inputs, alpha, params, running, spec, memory, backend, needs)

    lengths = (len(inputs), len(params))
    return list(
        _CellBackward.apply(  # type: ignore[no-untyped-call]
            call, grad, out, saved, statistics, alpha, *inputs, *params, *running
        )
    )


def _below_autograd(operator: Callable[..., Any], kernel: Callable[..., Any], x: Tensor) -> Callable[..., Any]:
    """The operator below its autograd formula; the kernel itself, where nothing else listens."""
    if unobserved(x):
        return kernel

    def call(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    return call


def unobserved(x: Tensor) -> bool:
    """Whether no tracer, mode or tensor subclass wants to see what is done with `x`.

    Then the dispatcher can be left out, which would convert some 200 tensors to C++ and back.
    """
    return (
        type(x) is Tensor
        and x.device.type in ("cpu", "cuda")
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
    )


def _split(flat: Sequence[Any], lengths: tuple[int, int]) -> tuple[list[Any], list[Any], list[Any]]:
    """Inputs, params and running statistics of a flat list."""
    inputs, params = lengths
    return list(flat[:inputs]), list(flat[inputs : inputs + params]), list(flat[inputs + params :])


@torch.library.impl(_library, "update_running_stats", "CompositeExplicitAutograd")
def blend_running_stats(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    """`update_running_stats` without the dispatcher."""
    update = gpu.update_running_stats if why_not_cpu(statistics) else cpu.update_running_stats
    update(running_mean, running_var, num_batches_tracked, statistics, momentum, counts)
    increment_version([*running_mean, *running_var, *num_batches_tracked])


@torch.library.register_fake("fastnas::update_running_stats", lib=_library)  # type: ignore[untyped-decorator]
def _(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    statistics: Tensor,
    momentum: Sequence[float],
    counts: Sequence[int],
) -> None:
    return None


def _outputs(inputs: Sequence[Tensor], text: str, memory: str, backend: str) -> tuple[Tensor, Any, Tensor]:
    """The result, the number of elements to save, and the statistics."""
    spec, x = decode(text), inputs[0]
    sizes = spec.sizes([(t.shape[2], t.shape[3]) for t in inputs])
    out = results.output(spec, x, sizes[spec.outputs[0]], backend)
    return out, implementation(backend).saved_size(spec, x, sizes, memory), results.statistics(spec, x)
