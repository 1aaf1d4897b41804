"""The compiled part (csrc/bindings.cpp). Tensors come as addresses; a view is (address, shape, strides in elements)."""

from collections.abc import Sequence

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
