"""Tensors without values, and what frequent operators make of them.

PyTorch describes an operator's results in Python, in up to milliseconds; these are described at once.
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
    if rule is None or kwargs or not args[follows].is_meta or not args[follows].is_contiguous():
        return func(*args, **kwargs)
    return rule(*args)


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


def _alike(x: Tensor, *others: Any) -> Tensor:
    return floats(*x.shape)


# With the number of the argument whose layout the results have.
_RULES: dict[Any, tuple[Callable[..., Any], int]] = {
    _ATEN.native_batch_norm.default: (_batch_norm, 0),
    _ATEN.native_batch_norm_backward.default: (_batch_norm_backward, 1),
    _ATEN.upsample_bilinear2d.default: (_bilinear, 0),
    _ATEN.relu.default: (_alike, 0),
    _ATEN.threshold_backward.default: (_alike, 0),
}
