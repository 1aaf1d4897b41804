"""Counts the memory of a computation that is only described: on PyTorch's meta device, where tensors have no values."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """While it is entered, follows every storage that an operator returns, until nobody holds it any more.

    Memory is what PyTorch allocates, and with it the pool from which the compiled part takes what it saves and computes
    in. The pool gives nothing back, but what is unused there serves the next call: so it holds the most that was in use
    at once.

    Attributes:
        peak: the most bytes at once so far.
        scratch: the most that an operator took while it ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.scratch = 0
        self._live = self._pooled = self._pool = 0
        self._in_pool = False
        self._storages: dict[int, weakref.ref[Any]] = {}  # by address

    @property
    def tensors(self) -> int:
        """Bytes of all tensors there are now."""
        return self._live + self._pooled

    @contextmanager
    def pooled(self) -> Iterator[None]:
        """What is allocated inside comes from the pool."""
        self._in_pool = True
        try:
            yield
        finally:
            self._in_pool = False

    def call(self, scratch: int, pooled: bool) -> None:
        """While it runs, an operator takes `scratch` bytes from the pool or from PyTorch."""
        self.scratch = max(self.scratch, scratch)
        if pooled:
            self._pool = max(self._pool, self._pooled + scratch)
        self.peak = max(self.peak, self._live + self._pool + (0 if pooled else scratch))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and follows its results; a view of what came from elsewhere is no memory of its own."""
        kwargs = kwargs or {}
        for given in _tensors((args, kwargs)):
            self._follow(given, 0)
        results = args[0] if _adds_in_place(func, args) else func(*args, **kwargs)
        for result in _tensors(results):
            self._follow(result, result.untyped_storage().nbytes())
        self.peak = max(self.peak, self._live + self._pool)
        return results

    def _follow(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key, pooled = storage._cdata, self._in_pool
        if key in self._storages:
            return
        self._add(size, pooled)

        def drop(_: Any) -> None:
            del self._storages[key]
            self._add(-size, pooled)

        self._storages[key] = weakref.ref(storage, drop)

    def _add(self, size: int, pooled: bool) -> None:
        if pooled:
            self._pooled += size
            self._pool = max(self._pool, self._pooled)
        else:
            self._live += size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _adds_in_place(func: Any, args: Any) -> bool:
    """Whether autograd adds up two gradients that meet in the memory of the first, as it does where only it holds that.

    A dispatch mode and a reference from Python keep it from doing so, hence 2 rather than 1.
    """
    if func is not torch.ops.aten.add.Tensor or torch.is_grad_enabled() or not args[0].is_contiguous():
        return False
    return bool(torch._C._storage_Use_Count(args[0].untyped_storage()._cdata) == 2)
