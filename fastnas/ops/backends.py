"""Which implementation of the operators runs, and why the others cannot."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastnas.ops import cpu, cuda, gpu
from fastnas.ops.spec import Spec

_Function = TypeVar("_Function", bound=Callable[..., Any])
NAMES = ("auto", "cuda", "triton", "cpu", "reference")
GPU_NAMES = ("cuda", "triton")
TRITON_CAPABILITY, CUDA_CAPABILITY = (7, 0), (6, 0)


def _constant(function: _Function) -> _Function:
    """As `torch.compiler.assume_constant_result`, which imports the compiler: a second that every command would pay."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


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
    return [
        *(_described(name) for name in GPU_NAMES),
        _cpu(),
        Backend("reference", True, "plain PyTorch; any device and dtype, slow"),
    ]


def choose(name: str, x: Tensor, spec: Spec | None = None) -> str:
    """The backend that computes on `x`: `name` itself, or the best one that can run for "auto".

    Args:
        name: of the backend.
        x: an input.
        spec: the cell, which may have what a backend lacks.

    Raises:
        BackendError: the named backend cannot run on `x`.
        ValueError: there is no such backend.
    """
    if name not in NAMES:
        raise ValueError(f"backend must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, got {name!r}")
    if name == "reference":
        return name
    if name != "auto":
        reason = why_not(name, x, spec)
        if reason:
            raise BackendError(f"backend {name!r} cannot run: {reason}")
        return name
    reasons = {}
    for candidate in GPU_NAMES if x.device.type == "cuda" else ("cpu",):
        reason = why_not(candidate, x, spec)
        if reason is None:
            return candidate
        reasons[candidate] = reason
    _warn_once("; ".join(f"backend {name!r} cannot run: {reason}" for name, reason in reasons.items()))
    return "reference"


def why_not(name: str, x: Tensor, spec: Spec | None = None) -> str | None:
    """Why backend `name` cannot compute on `x`; None if it can. `spec` as for `choose`."""
    return why_not_cpu(x) if name == "cpu" else why_not_gpu(name, x, spec)


def why_not_cpu(x: Tensor) -> str | None:
    """Why the C++ backend cannot compute on `x`; None if it can."""
    if x.device.type != "cpu":
        return f"it computes on CPU tensors, got one on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, got {_name(x.dtype)}"
    reason: str | None = _compiled_part_is_missing()
    return reason


def why_not_gpu(name: str, x: Tensor, spec: Spec | None = None) -> str | None:
    """Why the Triton or CUDA backend cannot compute on `x`; None if it can. `spec` as for `choose`."""
    lacks = cuda.lacks(spec) if name == "cuda" and spec else None
    if lacks:
        return lacks
    if x.dtype not in gpu.DTYPES:
        return f"it computes in {', '.join(map(_name, gpu.DTYPES))}, got {_name(x.dtype)}"
    if x.device.type == "cpu" and name == "triton" and interpreted():
        reason: str | None = _packages_are_missing(name)
        return reason
    if x.device.type != "cuda":
        return f"it computes on CUDA tensors, got one on {x.device}"
    reason = _why_not_device(name, x.device.index or 0)
    return reason


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU (TRITON_INTERPRET=1): for tests, very slow."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=4)
def implementation(name: str) -> Any:
    """What allocates and runs: `fastnas.ops.cpu`, or a `Gpu` with the backend's kernels."""
    if name == "cpu":
        return cpu
    if name == "triton":
        from fastnas.kernels.launch import TritonKernels

        return gpu.Gpu(TritonKernels())
    return gpu.Gpu(cuda.CudaKernels())


@_constant
def _why_not_device(name: str, index: int) -> str | None:
    missing: str | None = _packages_are_missing(name)
    if missing:
        return missing
    if torch.version.hip:
        return "it computes on NVIDIA GPUs, this PyTorch is built for AMD's"
    needed = TRITON_CAPABILITY if name == "triton" else CUDA_CAPABILITY
    actual = torch.cuda.get_device_capability(index)
    if actual < needed:
        return (
            f"it needs a GPU of compute capability {needed[0]}.{needed[1]}, "
            f"{torch.cuda.get_device_name(index)} has {actual[0]}.{actual[1]}"
        )
    return None


@_constant
def _packages_are_missing(name: str) -> str | None:
    if not _cpu().available:
        return _cpu().reason
    package = "triton" if name == "triton" else "cuda.core"
    try:
        found = find_spec(package)
    except ModuleNotFoundError:
        found = None
    return None if found else f"package {package} is not installed: pip install 'fastnas[{name}]'"


@_constant
def _compiled_part_is_missing() -> str | None:
    cpu = _cpu()
    return None if cpu.available else cpu.reason


def _described(name: str) -> Backend:
    missing = _packages_are_missing(name)
    if missing:
        return Backend(name, False, missing)
    if name == "triton" and interpreted():
        return Backend(name, True, "in Triton's interpreter, on the CPU; for tests, very slow")
    if not torch.cuda.is_available():
        return Backend(name, False, "no CUDA device")
    reasons = [_why_not_device(name, i) for i in range(torch.cuda.device_count())]
    devices = ", ".join(torch.cuda.get_device_name(i) for i, reason in enumerate(reasons) if reason is None)
    return Backend(name, True, f"on {devices}") if devices else Backend(name, False, reasons[0] or "")


@lru_cache(maxsize=1)
def _cpu() -> Backend:
    try:
        from fastnas import _C
    except ImportError as error:
        return Backend("cpu", False, f"the compiled part is missing: {error}")
    return Backend("cpu", True, f"C++, {_C.vector_width()}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=8)
def _warn_once(reasons: str) -> None:
    warnings.warn(f"fastnas computes with its slow reference, since {reasons}", stacklevel=4)
