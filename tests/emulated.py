"""The CUDA kernels on the CPU: csrc/cuda compiled by g++ against csrc/cuda/emulate, behind the interface of a backend."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fastnas import _C
from fastnas.ops.gpu import Tensors

ROOT = Path(__file__).parent.parent
FIELDS = (
    "kernel grid_x grid_y list count state tile images channels in_channels out_channels accumulate".split()
)  # of `Launch`, in the order of csrc/gpu/job.h
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Launch(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in FIELDS]


class EmulatedKernels:
    """`CudaKernels`, on CPU tensors.

    Args:
        tiling: elements, least, most, blocks; see csrc/gpu/plan.h. Few blocks, for each costs 128 threads here.
        seed: of the order in which blocks and threads run; 0 is ascending.
    """

    name = "cuda"

    def __init__(self, tiling: tuple[int, int, int, int] = (2048, 4, 128, 8), seed: int = 1) -> None:
        self.tiling, self.seed = tiling, seed

    def launch(self, launch: _C.GpuLaunch, tensors: Tensors) -> None:
        given = Launch(*(getattr(launch, name) for name in FIELDS))
        dtype = DTYPES.index(tensors.bases[0].dtype)
        check(library().fastnas_launch(dtype, pointers(tensors), ctypes.byref(given), self.seed))


def pointers(tensors: Tensors) -> ctypes.Array[ctypes.c_void_p]:
    """Where all tensors of a call lie, in the order of csrc/cuda/block.cuh."""
    every: list[Tensor] = [
        *(*tensors.bases, tensors.params, tensors.floats),
        *(tensors.statistics, tensors.grads, tensors.table),
    ]
    assert all(t.is_contiguous() for t in every)
    return (ctypes.c_void_p * len(every))(*(t.data_ptr() for t in every))


def check(status: int) -> None:
    if status:
        raise RuntimeError(library().fastnas_error().decode())


@cache
def library() -> ctypes.CDLL:
    """Built if it is missing or older than its sources."""
    subprocess.run(["make", "--silent", "-C", "csrc/cuda", "emulated"], cwd=ROOT, check=True)
    loaded = ctypes.CDLL(str(ROOT / "build/emulated/libemulated.so"))
    loaded.fastnas_error.restype = ctypes.c_char_p
    return loaded
