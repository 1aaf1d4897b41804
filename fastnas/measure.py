"""Memory of a step: what autograd saves for backward, and the peak. All figures are bytes."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Saved:
    """What a forward leaves behind for its backward.

    Attributes:
        storages: bytes of the distinct storages that autograd holds, without those that were to be left out.
        resident: rise of the process's resident memory while they are held. It confirms `storages` and counts besides
            what is not
            counted there: the results themselves and scratch memory that the allocator keeps.
    """

    storages: int
    resident: int


def saved_for_backward(forward: Callable[[], Any], leave_out: Iterable[Tensor] = ()) -> Saved:
    """Measure what `forward()` saves for backward.

    Args:
        forward: computes something that autograd can differentiate; its result is kept alive meanwhile.
        leave_out: tensors that exist anyway: inputs, parameters, buffers.
    """
    known = {_storage(t) for t in leave_out}
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[_storage(t)] = t.untyped_storage().nbytes()
        return t

    _settle()
    before = resident()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = forward()
    after = resident()
    del result
    return Saved(sum(size for storage, size in sizes.items() if storage not in known), after - before)


def peak(step: Callable[[], Any]) -> int:
    """Rise of the process's high-water mark of resident memory during `step()`, over what was resident before it.

    Linux only.

    Raises:
        OSError: the kernel does not let the mark be reset.
    """
    _settle()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return _status("VmHWM") - before


def resident() -> int:
    """Resident memory of this process."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no field {field}")


def _settle() -> None:
    """Give freed memory back to the system, so that it does not hide what is allocated next."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
