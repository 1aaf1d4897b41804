"""The compiled part (csrc/bindings.cpp). Tensors come as addresses; a view is (address, shape, strides in elements)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

_View = tuple[int, tuple[int, ...], tuple[int, ...]]
_Stage = tuple[str, int, int]
_Candidate = tuple[str, bool, list[_Stage]]
_Edge = tuple[int, int, int, bool, list[_Candidate], int, int]

def vector_width() -> str: ...
def block(element_size: int, channels: int) -> int: ...
def pooled_tensor(count: int, element_size: int) -> object: ...
def release_workspaces() -> None: ...
def workspace_bytes() -> int: ...
def peak_flops(threads: int, seconds: float) -> float: ...
def peak_cache_bytes(threads: int, seconds: float) -> float: ...
def peak_memory_bytes(threads: int, seconds: float) -> float: ...
def update_running_stats(
    means: Sequence[int],
    variances: Sequence[int],
    counters: Sequence[int],
    channels: Sequence[int],
    statistics: int,
    momentum: Sequence[float],
    counts: Sequence[float],
    element_size: int,
) -> None: ...

class Rehearsal:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...
    def repeat(self, other: Rehearsal) -> int: ...
    def held(self) -> int: ...
    def most(self) -> int: ...

class Arguments:
    def __init__(
        self,
        inputs: Sequence[_View],
        alpha: int,
        parameters: Sequence[int],
        running: Sequence[int],
        out: _View,
        saved: int,
        saved_size: int,
        statistics: int,
        memory: str,
        threads: int,
    ) -> None: ...

class Cell:
    def __init__(
        self,
        channels: Sequence[int],
        inputs: int,
        edges: Sequence[_Edge],
        outputs: Sequence[int],
        norms: Sequence[tuple[float, bool, bool]],
    ) -> None: ...
    def forward(self, arguments: Arguments, element_size: int) -> None: ...
    def backward(
        self,
        arguments: Arguments,
        grad: _View,
        inputs: Sequence[_View],
        alpha: int,
        parameters: Sequence[int],
        element_size: int,
    ) -> None: ...
    def plan_forward(
        self, images: int, inputs: Sequence[tuple[int, int]], memory: str, tiling: tuple[int, int, int, int]
    ) -> GpuPlan: ...
    def plan_backward(
        self,
        images: int,
        inputs: Sequence[tuple[int, int]],
        memory: str,
        tiling: tuple[int, int, int, int],
        wants: tuple[bool, bool, bool],
    ) -> GpuPlan: ...

def gpu_kernels() -> list[str]: ...
def gpu_columns() -> dict[str, dict[str, int]]: ...

class GpuLaunch:
    kernel: int
    grid_x: int
    grid_y: int
    list: int
    count: int
    state: int
    tile: int
    images: int
    channels: int
    in_channels: int
    out_channels: int
    accumulate: int
    resample: int

def gpu_launch(
    launch_kernel: int,
    functions: Sequence[int],
    launches: Sequence[GpuLaunch],
    tensors: int,
    threads: int,
    stream: int,
) -> int: ...

class GpuPlan:
    launches: list[GpuLaunch]
    table: bytes
    jobs: int
    saved: int
    scratch: int
    floats: int
    grad_inputs: int
    grads: int

class KernelCases:
    def __init__(self, channels: int, size: int, stride: int) -> None: ...
    def work(self) -> list[tuple[str, float, float]]: ...
    def seconds(self, name: str, budget: float) -> float: ...

PRODUCTS: frozenset[str]  # names of PyTorch's functions that are a product of two
SUMS: frozenset[str]
CONSTANT: int  # in place of a tensor's number where a weight is a constant

class Call:
    """A candidate's call that has been promised.

    Attributes:
        source: its input.
        shape: of its result.
        value: what was promised for it, while that is held.
        number: its place among the calls of its run.
        repeats: how often the region's code made it: with the same input, it gives the same.
        done: whether it has been computed, and its running statistics updated.
    """

    @property
    def recipe(self) -> Any: ...
    @property
    def source(self) -> Any: ...
    @property
    def shape(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    @property
    def number(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    done: bool

class Value:
    """The promise of `weight`, if there is one, times the sum of one or two parts.

    Attributes:
        run: the tape on which it stands.
        parts: calls, tensors or values, and of each whether it is meant as it is, or the terms of which it consists.
        number: its place among the values of its run.
        state: whether it is the input of a candidate, or part of a sum as it is.
        multiplied_out: for `fastnas.swap.promise.Value.terms`.
    """

    @property
    def weight(self) -> Any: ...
    @property
    def parts(self) -> tuple[tuple[Any, bool], ...]: ...
    @property
    def number(self) -> int: ...
    @property
    def state(self) -> bool: ...
    run: Any
    shape: torch.Size
    dtype: torch.dtype
    tensor: torch.Tensor | None
    multiplied_out: Any
    def __mul__(self, other: Any) -> Any: ...
    def __rmul__(self, other: Any) -> Any: ...
    def __add__(self, other: Any) -> Any: ...
    def __radd__(self, other: Any) -> Any: ...

class Tape:
    """One call of a region: what its code does with candidates.

    Args:
        value_type: of the promises, a subclass of `Value`.
        tensor_type: `torch.Tensor`.
        modes: return the modes of PyTorch in which everything has to be computed, the first whether gradients are on.
        alone: numbers of the values that are computed as soon as they are promised.
        kinds: of what has been met, numbers by which histories tell it.

    Attributes:
        calls: of candidates, by number.
        inputs, constants: tensors and numbers that are read, by number; equal constants have the same.
        mode: what `modes` returned at the beginning.
        half: whether autocast is on.
    """

    def __init__(
        self,
        value_type: type,
        tensor_type: type,
        modes: tuple[Callable[[], bool], ...],
        alone: set[int],
        kinds: dict[Any, int],
    ) -> None: ...
    @property
    def calls(self) -> list[Call]: ...
    @property
    def inputs(self) -> list[Any]: ...
    @property
    def constants(self) -> dict[float, int]: ...
    @property
    def mode(self) -> tuple[bool, ...]: ...
    half: bool
    def open(self) -> bool: ...
    def sums(self) -> bool: ...
    def weighs(self, x: Any) -> bool: ...
    def promise(self, recipe: Any, x: Any) -> Any: ...
    def promised(self, call: Call) -> Any: ...
    def of(self, tensor: Any) -> Any: ...
    def number(self, x: Any) -> int: ...
    def place(self, weight: Any) -> tuple[int, int]: ...
    def pending(self, recipe: Any) -> Sequence[Call]: ...
    def add_states(self, numbers: Sequence[int]) -> None: ...
    def history(self) -> bytes: ...
    def begin(self, after: object) -> None: ...
    def clear(self) -> None: ...
