"""Means to test the Triton kernels in their interpreter, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from operator_cases import Problem, error, fused, names, run
from torch import Tensor

from fastnas.ops import gpu, reference

MARKS = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="the interpreter is off: there is a GPU"),
    pytest.mark.usefixtures("one_thread", "interpreted"),
]
gpu_tensors = gpu.Tensors


@contextmanager
def hurried() -> Iterator[None]:
    """Makes the interpreter five times faster, by leaving out what tests do not need.

    Prepares `triton.language` once for each module of kernels, and does not look for overflow of integers.

    The interpreter searches all of `triton.language` for what it must replace at every call of a device function.
    """
    from triton.runtime import interpreter

    patch, builder = interpreter._patch_lang, interpreter.interpreter_builder
    scopes: dict[str, Any] = {}

    def patch_once(fn: FunctionType) -> Any:
        if fn.__module__ not in scopes:
            scopes[fn.__module__] = patch(fn)
        return SimpleNamespace(restore=lambda: None)

    with (
        mock.patch.object(interpreter, "_patch_lang", patch_once),
        mock.patch.object(builder, "options", replace(builder.options, sanitize_overflow=False)),
    ):
        yield
    for scope in reversed(scopes.values()):
        scope.restore()


class Guarded:
    """Tensors that are full of NaN and lie between zones of NaN, which nobody may write."""

    ZONE = 256

    def __init__(self) -> None:
        self._zones: list[Tensor] = []

    def allocate(self, elements: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        whole = torch.full((elements + 2 * self.ZONE,), float("nan"), dtype=dtype, device=device)
        self._zones += [whole[: self.ZONE], whole[self.ZONE + elements :]]
        return whole[self.ZONE : self.ZONE + elements]

    def copy(self, t: Tensor) -> Tensor:
        return self.allocate(t.numel(), t.dtype, t.device).copy_(t)

    def like(self, t: Tensor) -> Tensor:
        return self.allocate(t.numel(), t.dtype, t.device).view(t.shape)

    def tensors(self, bases: Sequence[Tensor], params: Tensor, *rest: Any) -> gpu.Tensors:
        """What a call only reads lies between such zones too."""
        given = [self.copy(t) for t in bases[: gpu.INPUTS]]
        return gpu_tensors([*given, *bases[gpu.INPUTS :]], self.copy(params), *rest)

    def check(self) -> None:
        assert self._zones
        assert all(zone.isnan().all() for zone in self._zones), "a kernel wrote beyond an allocation"


gpu_tensors = gpu.Tensors


def assert_agrees(p: Problem, memory: str) -> None:
    """Float32 against float64, for every tensor by itself.

    A few roundings of numbers of the tensor's size; or twice eager's own error, which is larger where a batch norm sees
    only a few values and divides by next to nothing.
    """
    single = p.to(torch.float32)
    exact, eager, ours = run(reference.cell, p), run(reference.cell, single), run(fused("triton", memory), single)
    for name, a, b, e in zip(names(p), ours, exact, eager, strict=True):
        assert a.shape == b.shape, name
        assert not a.isnan().any(), name
        scale = max(1.0, b.abs().max().item()) if b.numel() else 0.0
        assert error(a, b) <= max(1e-5 * scale, 2 * error(e, b)), name


def triton_kernels() -> Any:
    """The backend, whose tiling tests change."""
    from fastnas.kernels.launch import TritonKernels

    return TritonKernels
