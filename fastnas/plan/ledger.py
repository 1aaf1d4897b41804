"""Counts the memory of a computation that is only described: on PyTorch's meta device, where tensors have no values."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._tensors: dict[int, int] = {}  # bytes of storages, by address
        self._live = self._pooled = self._pool = 0
        self._in_pool = False
        self._callbacks: dict[int, weakref.ref[Any]] = {}

    @property
    def held(self) -> int:
        """Bytes now."""
        return self._live + self._pool

    @contextmanager
    def pooled(self) -> Iterator[None]:
        """What is allocated inside comes from the pool."""
        self._in_pool = True
        try:
            yield
        finally:
            self._in_pool = False

    def call(self, scratch: int) -> None:
        """An operator's call takes `scratch` bytes from the pool while it runs."""
        self._pool = max(self._pool, self._pooled + scratch)
        self._note()

    def allocate(self, size: int) -> None:
        """An operator's call takes `size` bytes from PyTorch while it runs."""
        self.peak = max(self.peak, self.held + size)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and follows its results."""
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._follow(result)
        self._note()
        return results

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._callbacks:
            return
        size, pooled = storage.nbytes(), self._in_pool
        self._add(size, pooled)

        def drop(_: Any) -> None:
            del self._callbacks[key]
            self._add(-size, pooled)

        self._callbacks[key] = weakref.ref(storage, drop)

    def _add(self, size: int, pooled: bool) -> None:
        if pooled:
            self._pooled += size
            self._pool = max(self._pool, self._pooled)
        else:
            self._live += size

    def _note(self) -> None:
        self.peak = max(self.peak, self.held)
