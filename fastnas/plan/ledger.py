"""Counts the memory of a computation that is only described: on PyTorch's meta device, where tensors have no values."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastnas.measure import Watching
from fastnas.plan.described import described

if TYPE_CHECKING:
    from fastnas import _C

# oneDNN works on copies, in a layout of its own, of what a convolution reads and writes.
_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)

_OBJECT = 720  # bytes of a tensor on the CPU besides its values


class Ledger(Watching):
    """While it is entered, follows every storage that an operator returns, until nobody holds it any more.

    Memory is what PyTorch allocates, and with it the pool from which the compiled part takes what it saves and computes
    in. That pool is rehearsed, so it serves requests as it will; what it once had counts from then on.

    Attributes:
        pool: for what the compiled part allocates.
        peak: the most bytes at once so far.
        scratch: the most that an operator took while it ran.
    """

    def __init__(self) -> None:
        from fastnas import _C

        super().__init__()  # type: ignore[no-untyped-call]
        self.pool = _C.Rehearsal()
        self.peak = self.scratch = 0
        self._live = self._pooled = 0
        self._storages: dict[int, _Storage] = {}  # by address
        self._in_pool = False

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

    def call(self, scratch: int) -> None:
        """An operator has run, which took so many bytes from PyTorch meanwhile."""
        self.scratch = max(self.scratch, scratch)
        self._note(self.pool.held() + scratch)

    def pooled_call(self, call: _C.Rehearsal) -> None:
        """An operator has run, which took from the pool what this one of its own heard of."""
        self.scratch = max(self.scratch, call.most())
        self._note(self.pool.repeat(call))

    def keep(self, tensors: int) -> None:
        """So many tensors come to stay, whose values are counted already."""
        self._live += tensors * _OBJECT

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and follows its results; a view of what came from elsewhere is no memory of its own."""
        kwargs = kwargs or {}
        for given in _tensors(*args, *kwargs.values()):
            self._follow(given, 0)
        results = args[0] if _adds_in_place(func, args) else described(func, args, kwargs)
        for result in _tensors(results):
            self._follow(result, result.untyped_storage().nbytes())
        copies = (*args, results) if func in _CONVOLUTIONS else ()
        self._note(self.pool.held() + sum(t.nbytes for t in _tensors(*copies)))
        return results

    def _follow(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        key, pooled = storage._cdata, self._in_pool and size > 0
        if key in self._storages:
            return

        def drop(_: Any) -> None:
            del self._storages[key]
            self._add(-size, pooled)

        self._storages[key] = _Storage(weakref.ref(storage, drop), self._block(size) if pooled else None)
        self._add(size, pooled)

    def _block(self, size: int) -> object:
        from fastnas import _C

        with self.pool:
            return _C.pooled_tensor(size, 1)

    def _add(self, size: int, pooled: bool) -> None:
        if pooled:
            self._pooled += size
        else:
            self._live += size

    def _note(self, besides: int) -> None:
        self.peak = max(self.peak, self._live + besides)


@dataclass(frozen=True)
class _Storage:
    """One that exists, and its block of the pool."""

    reference: weakref.ref[Any]
    block: object


def _tensors(*values: Any) -> Iterator[Tensor]:
    """The tensors of an operator's arguments or results, which are tensors, lists of them, and others."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (leaf for leaf in value if isinstance(leaf, Tensor))


def _adds_in_place(func: Any, args: Any) -> bool:
    """Whether autograd adds up two gradients that meet in the memory of the first, as it does where only it holds that.

    A dispatch mode and a reference from Python keep it from doing so, hence 2 rather than 1.
    """
    if func is not torch.ops.aten.add.Tensor or torch.is_grad_enabled() or not args[0].is_contiguous():
        return False
    return bool(torch._C._storage_Use_Count(args[0].untyped_storage()._cdata) == 2)
