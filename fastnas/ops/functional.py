"""The operators' functional form, with the checks that serve every backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fastnas.ops import reference
from fastnas.ops.backends import GPU_NAMES, choose
from fastnas.ops.candidates import DARTS_CANDIDATES
from fastnas.ops.operator import cell, differentiable_cell, unobserved
from fastnas.ops.spec import Edge, Norm, Spec

MEMORY_MODES = ("fast", "lean")


def mixed_cell(
    spec: Spec,
    inputs: Sequence[Tensor],
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor] = (),
    memory: str = "fast",
    backend: str = "auto",
    update: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """A cell: the concatenation of its output states, each y = Σ over its edges and their candidates of α·o(x).

    DARTS, equations 1 and 2. Differentiable once with respect to inputs, α and params.

    Under `torch.autocast` α, params and running are cast up to float32. On a CPU so are the inputs, as for PyTorch's
    norms and losses; on a GPU inputs, states and the result are of the autocast dtype, as for PyTorch's convolutions,
    and only storage is: all arithmetic is float32. Gradients arrive in the dtypes that were given.

    Args:
        spec: the cell.
        inputs: the given states, each (N, C, H, W), all of one floating dtype and device, in any memory layout. All
            other tensors are of the same dtype, or float32 where inputs are float16 or bfloat16.
        alpha: (spec.alphas,), the candidates' weights (after softmax), edge by edge.
        params: shapes and order as `spec.parameter_shapes`.
        running: mean and variance, each (C,), of every norm of `spec` that uses running statistics, in order.
        memory: what is saved for backward: "fast" also keeps the outputs of separable convolutions' first stages,
            "lean" computes them again.
        backend: "auto", "cuda", "triton", "cpu" or "reference".
        update: is called with the statistics as soon as they are known. `torch.utils.checkpoint` may end a second
            forward where the last tensor is saved for backward, before this function returns.

    Returns:
        y: (N, Σ C of the outputs, H', W'), on the CPU channels_last if the first input is.
        statistics: (2, Σ C of the norms that use the batch's), the batch's means and biased variances, no gradient.

    Raises:
        ValueError: shapes, dtypes or devices do not fit the cell, or a norm would see one value per channel.
        BackendError: the backend asked for cannot run.
    """
    if memory not in MEMORY_MODES:
        raise ValueError(f"memory must be one of {', '.join(MEMORY_MODES)}, got {memory!r}")
    device = alpha.device.type
    if torch.is_autocast_enabled(device):
        given = torch.get_autocast_dtype(device) if _keeps_half(backend, device) else torch.float32
        lists = [[_float32(t) for t in tensors] for tensors in ([alpha], params, running)]
        inputs = [t.to(given) if t.dtype != torch.float64 else t for t in inputs]
        with torch.autocast(device, enabled=False):
            return mixed_cell(spec, inputs, lists[0][0], lists[1], lists[2], memory, backend, update)
    _check(spec, inputs, alpha, params, running)
    chosen = choose(backend, inputs[0], spec)
    if chosen == "reference":
        if inputs[0].dtype != alpha.dtype:
            inputs = [t.to(alpha.dtype) for t in inputs]
        return _updated(update, *reference.cell(spec, inputs, alpha, params, running))
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (*inputs, alpha, *params)):
        memory = "none"
    call = list(inputs), alpha, list(params), list(running), spec.text, memory, chosen
    if unobserved(inputs[0]):
        out, _, statistics = differentiable_cell(*call, update)
        return out, statistics
    out, _, statistics = cell(*call)
    return _updated(update, out, statistics)


def _updated(update: Callable[[Tensor], None] | None, out: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    if update is not None:
        update(statistics)
    return out, statistics


def mixed_edge(
    x: Tensor,
    alpha: Tensor,
    params: Sequence[Tensor],
    running: Sequence[Tensor] = (),
    candidates: Sequence[str] = DARTS_CANDIDATES,
    stride: int = 1,
    norm: Norm | None = None,
    memory: str = "fast",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One mixed edge: y = Σ α·o(x) over `candidates`, every batch norm as `norm`; otherwise as `mixed_cell`."""
    spec = edge_spec(x.shape[1], tuple(candidates), stride, norm or Norm())
    return mixed_cell(spec, [x], alpha, params, running, memory, backend)


def _keeps_half(backend: str, device: str) -> bool:
    """Whether a GPU's kernels compute, which store half precision, or would were they asked."""
    return backend in GPU_NAMES or (backend == "auto" and device == "cuda")


def _float32(t: Tensor) -> Tensor:
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t


@lru_cache(maxsize=1024)
def edge_spec(channels: int, candidates: tuple[str, ...], stride: int, norm: Norm) -> Spec:
    """The cell that is one mixed edge."""
    edge = Edge(0, 1, stride, candidates)
    norms = (norm,) * sum(kind.norms for kind in edge.kinds)
    return Spec((channels, channels), 1, (edge,), (1,), norms)


def _check(
    spec: Spec, inputs: Sequence[Tensor], alpha: Tensor, params: Sequence[Tensor], running: Sequence[Tensor]
) -> None:
    if len(inputs) != spec.inputs:
        raise ValueError(f"the cell takes {spec.inputs} inputs, got {len(inputs)}")
    x = inputs[0]
    for i, t in enumerate(inputs):
        if t.ndim != 4 or t.shape[0] != x.shape[0] or t.shape[1] != spec.channels[i]:
            raise ValueError(f"input {i} must be (N={x.shape[0]}, C={spec.channels[i]}, H, W), got {tuple(t.shape)}")
        if 0 in t.shape:
            raise ValueError(f"input {i} must not be empty, got {tuple(t.shape)}")
    if tuple(alpha.shape) != (spec.alphas,):
        raise ValueError(f"α must be ({spec.alphas},), got {tuple(alpha.shape)}")
    for name, tensors, expected in (
        ("parameter", params, spec.parameter_shapes),
        ("running", running, spec.running_shapes),
    ):
        if len(tensors) != len(expected):
            raise ValueError(f"the cell takes {len(expected)} {name} tensors, got {len(tensors)}")
        shapes = [t.shape for t in tensors]
        if shapes != expected:
            i = next(i for i, shape in enumerate(shapes) if shape != expected[i])
            raise ValueError(f"{name} tensor {i} must be {expected[i]}, got {tuple(shapes[i])}")
    half = x.dtype in (torch.float16, torch.bfloat16)
    constants = alpha.dtype if half and alpha.dtype == torch.float32 else x.dtype
    for tensors, dtype in ((inputs, x.dtype), ((alpha, *params, *running), constants)):
        if {t.dtype for t in tensors} != {dtype} or {t.device for t in tensors} != {x.device}:
            t = next(t for t in tensors if t.dtype != dtype or t.device != x.device)
            raise ValueError(f"all tensors must be {dtype} on {x.device}, got {t.dtype} on {t.device}")
    if x.shape[0] == 1:
        _check_norms(spec, inputs)


def _check_norms(spec: Spec, inputs: Sequence[Tensor]) -> None:
    sizes = spec.norm_sizes([(t.shape[2], t.shape[3]) for t in inputs])
    if any(norm.batch and size == 1 for norm, size in zip(spec.norms, sizes, strict=True)):
        raise ValueError(
            "Expected more than 1 value per channel when training, got a batch norm over one image of size 1×1"
        )
