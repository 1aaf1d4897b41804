"""What plain PyTorch costs a GPU, operator by operator, counted on tensors without memory: nothing is run.

Counted as fastnas.bench.gpu_cost counts a launch: every kernel reads each of its tensors once and writes each once. An
operator that PyTorch runs as several kernels counts as these; views and allocations cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnas.bench.gpu_cost import Cost

aten = torch.ops.aten
NO_KERNEL = {aten.detach.default, aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}


class EagerCost(TorchDispatchMode):
    """Collects in `costs` the kernels of the operators called on meta tensors inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[Cost] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func not in NO_KERNEL:
            self.costs += _KERNELS.get(func.overloadpacket, _one_kernel)(func.overloadpacket.__name__, args, out)
        return out


def _tensors(tree: Any) -> list[Tensor]:
    return list({id(t): t for t in tree_leaves(tree) if isinstance(t, Tensor)}.values())


def _bytes(*trees: Any) -> int:
    return sum(t.numel() * t.element_size() for t in _tensors(trees))


def _one_kernel(name: str, args: Any, out: Any) -> list[Cost]:
    return [Cost(name, _bytes(args) + _bytes(out), sum(t.numel() for t in _tensors(out)))]


def _product_flops(out: Tensor, weight: Tensor) -> int:
    """Of a convolution, grouped or not, or of either of its derivatives."""
    return 2 * out.numel() * weight[0].numel()


def _convolution(name: str, args: Any, out: Any) -> list[Cost]:
    return [Cost(name, _bytes(args, out), _product_flops(out, args[1]))]


def _convolution_backward(name: str, args: Any, out: Any) -> list[Cost]:
    """cuDNN has a call for the input's gradient and one for the weight's."""
    grad, x, weight = args[:3]
    reads = (_bytes(grad, weight), _bytes(grad, x))
    wanted = [(read, result) for read, result in zip(reads, out, strict=False) if result is not None]
    return [Cost(name, read + _bytes(result), _product_flops(grad, weight)) for read, result in wanted]


def _batch_norm(name: str, args: Any, out: Any) -> list[Cost]:
    """Without affine parameters PyTorch leaves cuDNN alone: statistics, running statistics, then the transform."""
    x, small = _bytes(args[0]), _bytes(out[1:])
    elements = args[0].numel()
    return [Cost(name, x + small, 3 * elements), Cost(name, 2 * small, 0), Cost(name, x + _bytes(out), 2 * elements)]


_KERNELS: dict[Any, Callable[[str, Any, Any], list[Cost]]] = {
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten.native_batch_norm: _batch_norm,
}
