"""The operators' functional form, with the checks that serve every backend."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fastnas.ops import reference
from fastnas.ops.backends import choose
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
) -> tuple[Tensor, Tensor]:
    """A cell: the concatenation of its output states, each y = Σ over its edges and their candidates of α·o(x).

    DARTS, equations 1 and 2. Differentiable once with respect to inputs, α and params.

    Under `torch.autocast` a cell is one operation that autocasts to float32, as PyTorch's norms and losses do: inputs
    and α of a lower precision are cast up, computed with and returned in float32. Its gradients arrive in the dtypes
    that were given.

    Args:
        spec: the cell.
        inputs: the given states, each (N, C, H, W), all of one floating dtype and device, in any memory layout.
        alpha: (spec.alphas,), the candidates' weights (after softmax), edge by edge.
        params: shapes and order as `spec.parameter_shapes`.
        running: mean and variance, each (C,), of every norm of `spec` that uses running statistics, in order.
        memory: what is saved for backward: "fast" also keeps the outputs of separable convolutions' first stages,
            "lean" computes them again.
        backend: "auto", "cpu" or "reference".

    Returns:
        y: (N, Σ C of the outputs, H', W'), channels_last if the first input is.
        statistics: (2, Σ C of the norms that use the batch's), the batch's means and biased variances, no gradient.

    Raises:
        ValueError: shapes, dtypes or devices do not fit the cell, or a norm would see one value per channel.
        BackendError: the backend asked for cannot run.
    """
    if memory not in MEMORY_MODES:
        raise ValueError(f"memory must be one of {', '.join(MEMORY_MODES)}, got {memory!r}")
    device = alpha.device.type
    if torch.is_autocast_enabled(device):
        lists = [[_float32(t) for t in tensors] for tensors in (inputs, [alpha], params, running)]
        with torch.autocast(device, enabled=False):
            return mixed_cell(spec, lists[0], lists[1][0], lists[2], lists[3], memory, backend)
    _check(spec, inputs, alpha, params, running)
    if choose(backend, inputs[0]) == "reference":
        return reference.cell(spec, inputs, alpha, params, running)
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in (*inputs, alpha, *params)):
        memory = "none"
    run = differentiable_cell if unobserved(inputs[0]) else cell
    out, _, statistics = run(list(inputs), alpha, list(params), list(running), spec.text, memory)
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
    everything = (*inputs, alpha, *params, *running)
    if {t.dtype for t in everything} != {x.dtype} or {t.device for t in everything} != {x.device}:
        t = next(t for t in everything if t.dtype != x.dtype or t.device != x.device)
        raise ValueError(f"all tensors must be {x.dtype} on {x.device}, got {t.dtype} on {t.device}")
    if x.shape[0] == 1:
        _check_norms(spec, inputs)


def _check_norms(spec: Spec, inputs: Sequence[Tensor]) -> None:
    sizes = spec.norm_sizes([(t.shape[2], t.shape[3]) for t in inputs])
    if any(norm.batch and size == 1 for norm, size in zip(spec.norms, sizes, strict=True)):
        raise ValueError(
            "Expected more than 1 value per channel when training, got a batch norm over one image of size 1×1"
        )
