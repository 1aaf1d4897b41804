"""What a computation does and needs: its operators, what autograd saves for its backward, its peak, in bytes."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"  # man 5 proc_pid_clear_refs
_SLACK = 4 << 20  # the kernel counts pages by thread or processor, in batches: its sums may lag by this much


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, sees every operator that PyTorch runs; nothing is compiled meanwhile."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """To tell the compiler that it has no part in this, PyTorch would import it, which takes seconds."""
        return False


@dataclass(frozen=True)
class Saved:
    """What a forward leaves behind for its backward.

    Attributes:
        storages: bytes of the distinct storages that autograd holds, each at its full size, without those left out.
        resident: rise of the process's resident memory while they are held. It also sees what an autograd node keeps
            alive by other means, the results, and memory that a library keeps for its next call.
    """

    storages: int
    resident: int


def saved_for_backward(forward: Callable[[], Any], leave_out: Iterable[Tensor] = ()) -> Saved:
    """Measure what `forward()` saves for backward.

    Linux with glibc only. Call `forward` once before, so that what libraries allocate on first use is not counted.

    Args:
        forward: computes something that autograd can differentiate; its result is kept alive meanwhile.
        leave_out: tensors that exist anyway: inputs, parameters, buffers. Views of them are left out as well.

    Raises:
        OSError: the system does not report resident memory.
    """
    _settle()
    before = resident()
    with Saving() as saving:
        result = forward()
    _settle()
    rise = resident() - before
    storages = saving.storages(leave_out)
    del result
    return Saved(storages, rise)


class Saving:
    """While it is entered, keeps account of what autograd saves for backward.

    Attributes:
        count: how many tensors have been saved so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._held: weakref.WeakValueDictionary[int, _Held] = weakref.WeakValueDictionary()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda keeper: keeper.tensor)

    def __enter__(self) -> Saving:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()

    def storages(self, leave_out: Iterable[Tensor] = (), since: int = 0) -> int:
        """Bytes of the distinct storages that autograd holds now, each at its full size, without those left out.

        Args:
            leave_out: tensors that exist anyway; views of them are left out as well.
            since: leave out the first so many tensors that were saved.
        """
        # Autograd alone keeps the keepers alive, so those of branches that were dropped meanwhile are gone.
        held = [keeper.tensor for n in range(since, self.count) if (keeper := self._held.get(n)) is not None]
        sizes = {_address(t): t.untyped_storage().nbytes() for t in held}
        for t in leave_out:
            sizes.pop(_address(t), None)
        return sum(sizes.values())

    def _pack(self, t: Tensor) -> _Held:
        keeper = _Held(t.detach())  # an output that a node saves has that node as its grad_fn: a cycle
        self._held[self.count] = keeper
        self.count += 1
        return keeper


def peak(step: Callable[[], Any]) -> int:
    """Rise of the process's high-water mark of resident memory during `step()`, over what was resident before it.

    Linux with glibc only. What a library keeps from an earlier call is resident before, and so not counted.

    Raises:
        OSError: the system does not let the mark be reset, so that this peak cannot be told from an earlier one.
    """
    _settle()
    _reset_high_water_mark()
    before = resident()
    step()
    return _status("VmHWM") - before


def resident() -> int:
    """Resident memory of this process.

    Raises:
        OSError: the system does not report it.
    """
    return _status("VmRSS")


@dataclass(eq=False)
class _Held:
    """Stands for a saved tensor in the graph, and dies with it."""

    tensor: Tensor


def _address(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _settle() -> None:
    """Give freed memory back to the system, so that it neither counts as resident nor hides what is allocated next."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, TypeError) as error:
        raise OSError("memory cannot be measured: the C library has no malloc_trim (glibc has)") from error
    trim(0)


def _reset_high_water_mark() -> None:
    try:
        _CLEAR_REFS.write_text(_RESET_HIGH_WATER_MARK)
    except OSError as error:
        raise OSError(f"the peak cannot be measured: resetting it through {_CLEAR_REFS} failed ({error})") from error
    mark, now = _status("VmHWM"), resident()
    if mark > now + _SLACK:
        raise OSError(
            f"the peak cannot be measured: {_CLEAR_REFS} left it at {mark} bytes, with {now} bytes resident now"
        )


def _status(field: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError as error:
        raise OSError(f"memory cannot be measured: reading {_STATUS} failed ({error})") from error
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"memory cannot be measured: {_STATUS} has no {field}")
