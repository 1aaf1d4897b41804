"""Predicts the memory of a training step before anything runs (docs/plan.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fastnas.errors import UserError
from fastnas.ops import backends, cuda
from fastnas.plan.engines import CpuEngine, Engine, GpuEngine
from fastnas.plan.fit import largest
from fastnas.plan.networks import Described
from fastnas.plan.step import Size, Step, plan_step
from fastnas.plan.stock import StockEngine

__all__ = [
    "MODES",
    "SMALLEST",
    "STOCK",
    "CpuEngine",
    "Described",
    "Row",
    "Size",
    "Step",
    "StockEngine",
    "make_engine",
    "make_plan",
    "make_row",
    "plan_step",
]

STOCK = "stock"
MODES = ("fast", "lean")
SMALLEST = 8  # height and width of a crop that is tried


@dataclass(frozen=True)
class Row:
    """A memory mode's step, or stock's; with a limit, what fits it.

    Attributes:
        name: "fast", "lean" or "stock".
        step: of the size that was asked for.
        batch: the most images of that size; None if not even one fits.
        crop: the largest height and width for that many images; None if not even `SMALLEST` fits.
    """

    name: str
    step: Step
    batch: int | None = None
    crop: int | None = None


def make_engine(backend: str, threads: int, network: Described) -> Engine:
    """The engine that a backend's name stands for.

    Raises:
        UserError: the compiled part or a package is missing, or the backend cannot compute the network.
    """
    compiled = next(b for b in backends() if b.name == "cpu")
    if not compiled.available:
        raise UserError(f"a plan needs the compiled part: {compiled.reason}")
    if backend == "cpu":
        return CpuEngine(threads)
    if backend == "cuda":
        lacks = next(filter(None, (cuda.lacks(cell.spec) for cell in network.cells)), None)
        if lacks:
            raise UserError(f"backend 'cuda' cannot run this network: {lacks}")
        return GpuEngine(cuda.CudaKernels())
    try:
        from fastnas.kernels.launch import TritonKernels
    except ImportError as error:
        raise UserError(f"a plan for backend 'triton' needs its package: {error}") from error
    return GpuEngine(TritonKernels())


def make_row(network: Described, size: Size, engine: Engine, mode: str, limit: int | None) -> Row:
    """Predict a step; with a limit in bytes, find what fits."""

    @cache
    def step(at: Size) -> Step:
        return plan_step(network, at, engine, mode)

    first = step(size)
    if limit is None:
        return Row(mode, first)
    base = first.before - first.images
    batch = largest(
        lambda n: step(Size(n, size.height, size.width)).peak, limit, start=size.batch, power=1, least=1, base=base
    )
    crop = largest(
        lambda n: step(Size(size.batch, n, n)).peak,
        limit,
        start=round((size.height * size.width) ** 0.5),
        power=2,
        least=SMALLEST,
        base=base,
    )
    return Row(mode, first, batch, crop)


def make_plan(
    network: Described, size: Size, backend: str, threads: int, modes: Sequence[str], limit: int | None
) -> list[Row]:
    """A row for each memory mode, and one for stock, of which only the given size is predicted.

    Raises:
        UserError: see `make_engine`.
    """
    engine = make_engine(backend, threads, network)
    rows = [make_row(network, size, engine, mode, limit) for mode in modes]
    return [*rows, make_row(network, size, StockEngine(), STOCK, None)]
