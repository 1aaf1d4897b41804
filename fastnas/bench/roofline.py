"""Achieved arithmetic and traffic of every kernel and of whole cells, beside the processor's own peaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from fastnas import _C
from fastnas.bench.work import FORWARD_AND_BACKWARD, cell_multiply_adds
from fastnas.nn import Cell
from fastnas.nn.supernet import EDGES, STEPS
from fastnas.ops import DARTS_CANDIDATES
from fastnas.threads import using_threads


@dataclass(frozen=True)
class Peaks:
    """What the processor was seen to do at most with `threads` threads.

    Attributes:
        threads: that ran at once.
        flops: float32 operations a second, in chains of multiply-adds of the widest vectors in use.
        cache_bytes: bytes a second that a triad moves between the cores and their second-level caches.
        memory_bytes: the same for main memory.
    """

    threads: int
    flops: float
    cache_bytes: float
    memory_bytes: float


@dataclass(frozen=True)
class Row:
    """A measured piece of work.

    Attributes:
        name: of the kernel or cell.
        shape: of the image, (C, H, W).
        stride: 1 or 2.
        seconds: of a run, the median.
        flops: useful floating-point operations of a run.
        bytes: to be read and written once in a run; None where that says nothing, as for a cell.
        peaks: with as many threads as ran.
    """

    name: str
    shape: tuple[int, int, int]
    stride: int
    seconds: float
    flops: float
    bytes: float | None
    peaks: Peaks

    @property
    def flops_share(self) -> float:
        """Of the peak of multiply-adds."""
        return self.flops / self.seconds / self.peaks.flops

    @property
    def cache_share(self) -> float | None:
        """Of the second-level cache's bandwidth; above 1 for what lies in the first level."""
        return None if self.bytes is None else self.bytes / self.seconds / self.peaks.cache_bytes

    @property
    def memory_share(self) -> float | None:
        """Of main memory's bandwidth; above 1 for what lies in a cache."""
        return None if self.bytes is None else self.bytes / self.seconds / self.peaks.memory_bytes


def measure_peaks(threads: int, seconds: float) -> Peaks:
    """The peaks with `threads` threads, measured for about `seconds` each."""
    measured = (_C.peak_flops, _C.peak_cache_bytes, _C.peak_memory_bytes)
    return Peaks(threads, *(measure(threads, seconds) for measure in measured))


def kernel_rows(channels: int, size: int, stride: int, peaks: Peaks, seconds: float) -> Iterator[Row]:
    """Every kernel on one image (channels, size, size) that lies in the cache, with one thread.

    At stride 2 these are the kernels that have a stride. `peaks` are of one thread.
    """
    cases = _C.KernelCases(channels, size, stride)
    for name, flops, moved in cases.work():
        yield Row(name, (channels, size, size), stride, cases.seconds(name, seconds), flops, moved, peaks)


def cell_rows(channels: int, size: int, batch: int, peaks: Peaks, seconds: float) -> Iterator[Row]:
    """Forward and backward of a normal cell on a batch, in both memory modes, with the threads of `peaks`.

    Inputs are (batch, 4·channels, size, size). The convolutions' arithmetic is useful, three times that of forward;
    what a memory mode computes again is not.
    """
    for memory in ("fast", "lean"):
        cell = Cell(STEPS * channels, STEPS * channels, channels, reduction=False, reduction_prev=False, memory=memory)
        useful = 2.0 * FORWARD_AND_BACKWARD * batch * cell_multiply_adds(cell.spec, [(size, size)] * 2)
        with using_threads(peaks.threads):
            taken = _timed(_forward_backward(cell, batch, STEPS * channels, size), seconds)
        yield Row(f"normal cell, {memory}, batch {batch}", (channels, size, size), 1, taken, useful, None, peaks)


def _forward_backward(cell: Cell, batch: int, channels: int, size: int) -> Callable[[], None]:
    s0, s1, grad = (torch.randn(batch, channels, size, size) for _ in range(3))
    candidates = len(DARTS_CANDIDATES)
    leaves = [s0, s1, torch.full((EDGES, candidates), 1 / candidates), *cell.parameters()]
    for leaf in leaves[:3]:
        leaf.requires_grad_()

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        cell(*leaves[:3]).backward(grad)

    return step


def _timed(step: Callable[[], None], seconds: float) -> float:
    step()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return median(times)
