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
    if rule is None or not kwargs.items() <= _NOT_OF_SHAPES.items():
        return func(*args, **kwargs)
    shown = args[follows] if isinstance(args[follows], Tensor) else args[follows][0]
    return rule(*args) if shown.is_meta and _row_major(shown) else func(*args, **kwargs)


def _row_major(x: Tensor) -> bool:
    """Whether the last dimension changes fastest, also in a part or an expanded tensor: then results are contiguous."""
    steps = [step for n, step in zip(x.shape, x.stride(), strict=True) if n > 1 and step > 0]
    return steps == sorted(steps, reverse=True)


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
    return floats(x.shape[0], weight.shape[0], *_windows(x, weight.shape[2:], stride, padding, dilation))


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
    shapes = x.shape, weight.shape, weight.shape[:1]
    return tuple(floats(*shape) if wanted else None for shape, wanted in zip(shapes, others[-1], strict=True))


def _max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> tuple[Tensor, Tensor]:
    values = _avg_pool(x, kernel, stride, padding)
    return values, torch.empty(values.shape, dtype=torch.int64, device="meta")


def _avg_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], *others: Any) -> Tensor:
    return floats(*x.shape[:2], *_windows(x, kernel, stride, padding, (1, 1)))


def _windows(x: Tensor, *along: Sequence[int]) -> list[int]:
    """Height and width of what windows give whose kernel, stride, padding and dilation are `along` both."""
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(x.shape[2:], *along, strict=True)]


def _cat(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    sizes = list(xs[0].shape)
    sizes[dim] = sum(x.shape[dim] for x in xs)
    return floats(*sizes)


def _reduced(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    gone = {dim % x.dim() for dim in dims}
    sizes = [(1 if dim in gone else n) for dim, n in enumerate(x.shape)]
    return floats(*(n for dim, n in enumerate(sizes) if keepdim or dim not in gone))


def _stack(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    sizes = list(xs[0].shape)
    sizes.insert(dim % (len(sizes) + 1), len(xs))
    return floats(*sizes)


def _mm(x: Tensor, y: Tensor) -> Tensor:
    return floats(x.shape[0], y.shape[1])


def _addmm(bias: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return _mm(x, y)


def _elementwise(x: Tensor, other: Any) -> Tensor:
    """PyTorch's `broadcast_shapes` would import its compiler."""
    others = [other] if isinstance(other, Tensor) else []
    return floats(*torch.broadcast_tensors(x, *others)[0].shape)  # type: ignore[no-untyped-call]


def _mean_loss(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return floats(), floats()


def _alike(x: Tensor, *others: Any) -> Tensor:
    return floats(*x.shape)


def _alike_second(grad: Tensor, x: Tensor, *others: Any) -> Tensor:
    return floats(*x.shape)


def _of_part(grad: Tensor, sizes: Sequence[int], *others: Any) -> Tensor:
    return floats(*sizes)


# Keyword arguments that operators may be given without any difference to shapes.
_NOT_OF_SHAPES = {"correction": 0, "memory_format": torch.preserve_format, "pin_memory": False}

# With the number of the argument whose layout the results have.
_RULES: dict[Any, tuple[Callable[..., Any], int]] = {
    _ATEN.native_batch_norm.default: (_batch_norm, 0),
    _ATEN.native_batch_norm_backward.default: (_batch_norm_backward, 1),
    _ATEN.upsample_bilinear2d.default: (_bilinear, 0),
    _ATEN.convolution.default: (_convolution, 0),
    _ATEN.convolution_backward.default: (_convolution_backward, 1),
    _ATEN.max_pool2d_with_indices.default: (_max_pool, 0),
    _ATEN.max_pool2d_with_indices_backward.default: (_alike_second, 1),
    _ATEN.avg_pool2d.default: (_avg_pool, 0),
    _ATEN.avg_pool2d_backward.default: (_alike_second, 1),
    _ATEN.mean.dim: (_reduced, 0),
    _ATEN.sum.dim_IntList: (_reduced, 0),
    _ATEN.var.correction: (_reduced, 0),
    _ATEN.select_backward.default: (_of_part, 0),
    _ATEN.slice_backward.default: (_of_part, 0),
    _ATEN.cat.default: (_cat, 0),
    _ATEN.stack.default: (_stack, 0),
    _ATEN.mm.default: (_mm, 1),
    _ATEN.addmm.default: (_addmm, 1),
    _ATEN.add.Tensor: (_elementwise, 0),
    _ATEN.mul.Tensor: (_elementwise, 0),
    _ATEN.div.Scalar: (_elementwise, 0),
    _ATEN.ones_like.default: (_alike, 0),
    _ATEN.zeros_like.default: (_alike, 0),
    _ATEN.relu.default: (_alike, 0),
    _ATEN.threshold_backward.default: (_alike, 0),
    _ATEN._log_softmax.default: (_alike, 0),
    _ATEN._log_softmax_backward_data.default: (_alike, 0),
    _ATEN.nll_loss_forward.default: (_mean_loss, 0),
    _ATEN.nll_loss_backward.default: (_alike_second, 1),
    _ATEN.nll_loss2d_forward.default: (_mean_loss, 0),
    _ATEN.nll_loss2d_backward.default: (_alike_second, 1),
}
