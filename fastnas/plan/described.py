"""Tensors without values, and what frequent operators make of them.

PyTorch describes an operator's results in Python, in up to milliseconds, and imports its compiler to do so, which takes
seconds; these are described at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten


def floats(*shape: int) -> Tensor:
    """A tensor of this shape in float32, contiguous, on the meta device."""
    return torch.empty(shape, device="meta")


def described(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """`func(*args, **kwargs)`, but its results are only described if the tensors are, in float32."""
    rule, follows = _RULES.get(func, (None, 0))
    if rule is None or kwargs:
        return func(*args, **kwargs)
    shown = args[follows] if isinstance(args[follows], Tensor) else args[follows][0]
    plain = shown.is_meta and (shown.is_contiguous() or _once(shown).is_contiguous())
    return rule(*args) if plain else func(*args, **kwargs)


def _once(x: Tensor) -> Tensor:
    """`x` without the repetitions of an expanded tensor, which an elementwise result lays out one after the other."""
    return x[tuple(slice(1) if step == 0 else slice(None) for step in x.stride())]


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...]:
    saved = x.shape[1] if training else 0
    return floats(*x.shape), floats(saved), floats(saved)


def _batch_norm_backward(grad: Tensor, x: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
    shapes = x.shape, x.shape[1:2], x.shape[1:2]
    return tuple(floats(*shape) if wanted else None for shape, wanted in zip(shapes, others[-1], strict=True))


def _bilinear(x: Tensor, size: Sequence[int], *others: Any) -> Tensor:
    return floats(*x.shape[:2], *size)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *others: Any,
) -> Tensor:
    """Not of a transposed one, which no network has."""
    along = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return floats(x.shape[0], weight.shape[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in along))


def _cat(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    sizes = list(xs[0].shape)
    sizes[dim] = sum(x.shape[dim] for x in xs)
    return floats(*sizes)


def _mean(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    gone = {dim % x.dim() for dim in dims}
    sizes = [(1 if dim in gone else n) for dim, n in enumerate(x.shape)]
    return floats(*(n for dim, n in enumerate(sizes) if keepdim or dim not in gone))


def _stack(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    sizes = list(xs[0].shape)
    sizes.insert(dim % (len(sizes) + 1), len(xs))
    return floats(*sizes)


def _addmm(bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return floats(x.shape[0], y.shape[1])


def _elementwise(x: Tensor, other: Any) -> Tensor:
    """PyTorch's `broadcast_shapes` would import sympy."""
    others = [other] if isinstance(other, Tensor) else []
    return floats(*torch.broadcast_tensors(x, *others)[0].shape)  # type: ignore[no-untyped-call]


def _mean_loss(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return floats(), floats()


def _mean_loss_backward(grad: Tensor, x: Tensor, *others: Any) -> Tensor:
    return floats(*x.shape)


def _alike(x: Tensor, *others: Any) -> Tensor:
    return floats(*x.shape)


# With the number of the argument whose layout the results have.
_RULES: dict[Any, tuple[Callable[..., Any], int]] = {
    _ATEN.native_batch_norm.default: (_batch_norm, 0),
    _ATEN.native_batch_norm_backward.default: (_batch_norm_backward, 1),
    _ATEN.upsample_bilinear2d.default: (_bilinear, 0),
    _ATEN.convolution.default: (_convolution, 0),
    _ATEN.mean.dim: (_mean, 0),
    _ATEN.cat.default: (_cat, 0),
    _ATEN.stack.default: (_stack, 0),
    _ATEN.addmm.default: (_addmm, 1),
    _ATEN.add.Tensor: (_elementwise, 0),
    _ATEN.mul.Tensor: (_elementwise, 0),
    _ATEN.div.Scalar: (_elementwise, 0),
    _ATEN.relu.default: (_alike, 0),
    _ATEN.threshold_backward.default: (_alike, 0),
    _ATEN._log_softmax.default: (_alike, 0),
    _ATEN._log_softmax_backward_data.default: (_alike, 0),
    _ATEN.nll_loss_forward.default: (_mean_loss, 0),
    _ATEN.nll_loss_backward.default: (_mean_loss_backward, 1),
    _ATEN.nll_loss2d_forward.default: (_mean_loss, 0),
    _ATEN.nll_loss2d_backward.default: (_mean_loss_backward, 1),
}
