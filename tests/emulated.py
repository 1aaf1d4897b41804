"""The CUDA kernels on the CPU, behind the interface of a backend: csrc/cuda, compiled by g++ with csrc/cuda/emulate."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fastnas import _C
from fastnas.ops import cuda
from fastnas.ops.gpu import Tensors

ROOT = Path(__file__).parent.parent


class LaunchArgument(ctypes.Structure):
    """`Launch` of csrc/gpu/job.h."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            *("kernel", "grid_x", "grid_y", "list", "count", "state", "tile", "images", "channels"),
            *("in_channels", "out_channels", "accumulate", "resample"),
        )
    )

    @classmethod
    def of(cls, launch: _C.GpuLaunch) -> LaunchArgument:
        return cls(*(getattr(launch, field[0]) for field in cls._fields_))


class EmulatedKernels:
    """`CudaKernels`, on CPU tensors.

    Args:
        tiling: elements, least, most, blocks; see csrc/gpu/plan.h. Few blocks, for each costs 128 threads here.
        seed: of the order in which blocks and threads run; 0 is ascending.
    """

    name = "cuda"

    def __init__(self, tiling: tuple[int, int, int, int] = (*cuda.CudaKernels.tiling[:3], 8), seed: int = 1) -> None:
        self.tiling, self.seed = tiling, seed

    def run(self, launches: Sequence[_C.GpuLaunch], tensors: Tensors) -> None:
        dtype, given = list(cuda.SCALARS).index(tensors.bases[0].dtype), cuda.TensorsArgument.of(tensors)
        for launch in launches:
            arguments = map(ctypes.byref, (given, LaunchArgument.of(launch)))
            check(library().fastnas_launch(dtype, *arguments, self.seed))


def check(status: int) -> None:
    if status:
        raise RuntimeError(library().fastnas_error().decode())


@cache
def library() -> ctypes.CDLL:
    """Built if it is missing or older than its sources."""
    subprocess.run(["make", "--silent", "-C", "csrc/cuda", "emulated"], cwd=ROOT, check=True)
    loaded = ctypes.CDLL(str(ROOT / "build/cuda/libemulated.so"))
    for name in ("to_half", "to_bfloat", "from_half", "from_bfloat"):
        getattr(loaded, f"fastnas_{name}").argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    loaded.fastnas_error.restype = ctypes.c_char_p
    return loaded
