"""What the tests of `fastnas.accelerate` share: inputs, and the comparison with a module as it was written."""

from __future__ import annotations

import copy
from typing import Any

import torch
from foreign import SIZE, C
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

TOLERANCE = 1e-9


def x(channels: int = C, size: int = SIZE) -> Tensor:
    return torch.randn(3, channels, size, size).double().requires_grad_()


def rows(n: int, k: int = 8) -> Tensor:
    return torch.rand(n, k).double().requires_grad_()


def weights(k: int = 8) -> Tensor:
    return torch.rand(k).double().requires_grad_()


def results(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor | None]:
    """Everything that a step computes: outputs, all gradients, buffers."""
    torch.manual_seed(3)
    out = [t for t in tree_flatten(module(*inputs))[0] if isinstance(t, Tensor)]
    given = [t for t in tree_flatten(inputs)[0] if isinstance(t, Tensor) and t.requires_grad]
    wanted = [*given, *(p for p in module.parameters() if p.requires_grad)]
    loss = sum((torch.randn_like(t) * t).sum() for t in out)
    grads = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    return [*out, *grads, *(b.clone() for b in module.buffers())]


def assert_same(ours: nn.Module, theirs: nn.Module, inputs: tuple[Any, ...]) -> None:
    pairs = zip(results(ours, inputs), results(theirs, inputs), strict=True)
    for i, (a, b) in enumerate(pairs):
        if a is None or b is None:  # no gradient is one of zeros
            assert not any(t is not None and t.any() for t in (a, b)), i
        else:
            torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, i=i: f"{i}: {m}")


def pair(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The module, twice."""
    module = module.double()
    return copy.deepcopy(module), module
