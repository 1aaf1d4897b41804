"""How the operator computes a module that it has a candidate for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import nn

from fastnas.ops import CANDIDATES, PREPROCESS
from fastnas.swap.trace import OF_EVERY_MODULE

STATE = "_fastnas"
"""The attribute of a swapped module that holds its `Recipe` or `Home`."""

_READ_ANEW = {"eps", "momentum", "track_running_stats"}  # of a batch norm, by the operator


class RefusedError(Exception):
    """A module stays as it is; the message says why."""


class Recipe:
    """How the operator computes a module.

    Attributes:
        name: from `fastnas.ops.CANDIDATES` or `PREPROCESS`.
        stride: 1 or 2.
        channels: in and out; None where any number will do.
        leaves: convolutions and batch norms in the operator's order.
        convolves: whether there is a convolution among them.
        odd: whether inputs of odd height or width may be given: public factorised reduces differ, or fail, on them.
    """

    def __init__(
        self, module: nn.Module, name: str, stride: int, leaves: Sequence[nn.Module], channels: tuple[int, int] | None
    ) -> None:
        self.name, self.stride, self.leaves, self.channels = name, stride, list(leaves), channels
        self.odd = True
        self._last: tuple[Sequence[int], torch.Size | None] = ((), None)
        self.convolves = any(isinstance(leaf, nn.Conv2d) for leaf in leaves)
        modules = list(module.modules())
        self._positions = [modules.index(leaf) for leaf in leaves]
        self._empty: list[Any] = [store for m in modules for store in hook_stores(m)]
        self._empty += [m._modules for m in modules if not m._modules]
        self._children = [(m._modules, list(m._modules.values())) for m in modules if m._modules]
        self._attributes = [_attributes(m, m is module) for m in modules]

    @property
    def preprocesses(self) -> bool:
        """Whether it is one of `PREPROCESS`, which α does not weigh."""
        return self.name in PREPROCESS

    @property
    def bare_pool(self) -> bool:
        """Whether it is a pool without batch norm."""
        return not self.leaves and not self.preprocesses and CANDIDATES[self.name].pool is not None

    @property
    def cheap(self) -> bool:
        """Whether it costs little next to the Python code that an operator's call takes."""
        return self.preprocesses or self.bare_pool or self.name in ("none", "skip_connect")

    @property
    def signature(self) -> tuple[Any, ...]:
        """Alike for modules of one class that compute the same."""
        return (self.name, self.stride, self.channels, tuple(getattr(leaf, "affine", None) for leaf in self.leaves))

    def of(self, module: nn.Module) -> Recipe:
        """The same of a module that is built alike."""
        modules = list(module.modules())
        recipe = Recipe(module, self.name, self.stride, [modules[i] for i in self._positions], self.channels)
        recipe.odd = self.odd
        return recipe

    def result(self, shape: Sequence[int]) -> torch.Size | None:
        """The shape of its result for an input of `shape`; None if the operator does not take that.

        csrc/swap asks for it where the last shape was another.
        """
        found = self.shape(shape) if self.fits(shape) else None
        self._last = shape, found
        return found

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the operator takes an input of this shape."""
        if len(shape) != 4 or 0 in shape or (self.channels and shape[1] != self.channels[0]):
            return False
        return self.odd or (shape[2] % 2 == 0 and shape[3] % 2 == 0)

    def shape(self, shape: Sequence[int]) -> torch.Size:
        """Of the result."""
        n, c, h, w = shape
        return torch.Size([n, self.channels[1] if self.channels else c, -(-h // self.stride), -(-w // self.stride)])


def _attributes(module: nn.Module, swapped: bool) -> tuple[nn.Module, int, tuple[str, ...], tuple[Any, ...]]:
    """A module's own attributes, with the number of all that it will have if it is `swapped`.

    csrc/swap compares them: on others, such as the probability of dropping a path, the module may compute otherwise.
    """
    own = vars(module)
    ignored = OF_EVERY_MODULE | {STATE} | (_READ_ANEW if isinstance(module, nn.BatchNorm2d) else set())
    watched = {
        name: copy(value) if type(value) in (list, dict, set) else value
        for name, value in own.items()
        if name not in ignored
    }
    return module, len(own) + (swapped and STATE not in own), tuple(watched), tuple(watched.values())


def hook_stores(module: nn.Module) -> list[dict[int, Any]]:
    """Where a module keeps its hooks."""
    return [
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    ]


def brief(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error) or type(error).__name__).splitlines()[0]
