"""Tells modules that are built alike, so that each kind need be looked at only once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from fastnas.swap.recipes import STATE, hook_stores
from fastnas.swap.trace import is_leaf

_PLAIN = (int, float, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
_MANY = 1024  # values of a tensor that are compared


def fingerprint(module: nn.Module) -> Any:
    """Equal for modules whose classes, attributes and tensors' shapes are equal, in themselves and all inside them.

    Values of parameters and running statistics do not count, nor do training flags; everything that cannot be compared
    by value, such as hooks and functions, differs unless it is the same object.
    """
    numbers = {m: i for i, m in enumerate(module.modules())}
    tensors: dict[int, int] = {}  # which of them are the same
    return tuple([_described(m, numbers, tensors) for m in numbers])


def signature(arguments: Any) -> Any:
    """Equal for calls' arguments that are alike: floats by shape, dtype and layout, all else by value."""
    leaves, tree = tree_flatten(arguments)
    tensors: dict[int, int] = {}
    return str(tree), tuple([_tensor(v, tensors) if _floats(v) else _value(v, tensors) for v in leaves])


def _described(module: nn.Module, numbers: dict[nn.Module, int], tensors: dict[int, int]) -> Any:
    own = {"_parameters", "_buffers", "_modules", "training", STATE}
    attributes = [(name, _value(v, tensors)) for name, v in module.__dict__.items() if name not in own]
    buffers = [(n, _buffer(b, is_leaf(module), tensors)) for n, b in module._buffers.items()]
    return (
        type(module),
        tuple(attributes),
        tuple([(n, None if p is None else _tensor(p, tensors)) for n, p in module._parameters.items()]),
        tuple(buffers),
        tuple([(n, None if m is None else numbers[m]) for n, m in module._modules.items()]),
        tuple([tuple(map(id, store.values())) for store in hook_stores(module)]),
    )


def _tensor(t: Tensor, tensors: dict[int, int]) -> Any:
    how = type(t), tuple(t.shape), t.stride(), t.dtype, t.device, t.layout, t.requires_grad
    return tensors.setdefault(id(t), len(tensors)), how


def _buffer(b: Tensor | None, of_leaf: bool, tensors: dict[int, int]) -> Any:
    """Of batch norms only the shapes; others may be read by what the module does."""
    return None if b is None else _tensor(b, tensors) if of_leaf else _value(b, tensors)


def _value(v: Any, tensors: dict[int, int]) -> Any:
    if isinstance(v, Tensor):
        trained = _floats(v) and v.requires_grad
        return _tensor(v, tensors), () if trained else tuple(v.flatten().tolist()) if v.numel() <= _MANY else id(v)
    if type(v) in _PLAIN:
        return type(v), v
    if type(v) in (list, tuple, set, frozenset):
        return type(v), tuple([_value(item, tensors) for item in v])
    if type(v) in (dict, OrderedDict):
        return type(v), tuple([(_value(k, tensors), _value(item, tensors)) for k, item in v.items()])
    return type(v), id(v)


def _floats(v: Any) -> bool:
    return isinstance(v, Tensor) and v.is_floating_point()
