"""Which implementation of the operators runs, and why the others cannot."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


class BackendError(RuntimeError):
    """The backend that was asked for cannot run; the message says why."""


@dataclass(frozen=True)
class Backend:
    """An implementation: its name, whether it can run here, and why not or with what."""

    name: str
    available: bool
    reason: str


def backends() -> list[Backend]:
    """All implementations, in the order in which `backend="auto"` tries them."""
    return [_cpu(), Backend("reference", True, "plain PyTorch; any device and dtype, slow")]


def choose(name: str, x: Tensor) -> str:
    """The backend that computes on `x`: `name` itself, or the best one that can run for "auto".

    Raises:
        BackendError: the named backend cannot run on `x`.
        ValueError: there is no such backend.
    """
    if name == "reference":
        return name
    if name not in ("auto", "cpu"):
        raise ValueError(f"backend must be auto, cpu or reference, got {name!r}")
    reason = why_not_cpu(x)
    if reason is None:
        return "cpu"
    if name == "cpu":
        raise BackendError(f"backend 'cpu' cannot run: {reason}")
    _warn_once(reason)
    return "reference"


def why_not_cpu(x: Tensor) -> str | None:
    """Why the C++ backend cannot compute on `x`; None if it can."""
    if x.device.type != "cpu":
        return f"it computes on CPU tensors, got one on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, got {str(x.dtype).removeprefix('torch.')}"
    reason: str | None = _compiled_part_is_missing()
    return reason


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _compiled_part_is_missing() -> str | None:
    cpu = _cpu()
    return None if cpu.available else cpu.reason


@lru_cache(maxsize=1)
def _cpu() -> Backend:
    try:
        from fastnas import _C
    except ImportError as error:
        return Backend("cpu", False, f"the compiled part is missing: {error}")
    return Backend("cpu", True, f"C++, {_C.vector_width()}")


@lru_cache(maxsize=8)
def _warn_once(reason: str) -> None:
    warnings.warn(f"fastnas computes with its slow reference, since backend 'cpu' cannot run: {reason}", stacklevel=4)
