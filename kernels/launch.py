"""Puts the launches of a plan on a device: which kernel, on which grid, in blocks of what size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import triton

from fastnas import _C
from fastnas.kernels import backward, forward, merge, stage_back

if TYPE_CHECKING:
    from fastnas.ops.gpu import Tensors, Tiling

KERNELS: dict[str, Any] = {
    "moments": forward.moments,
    "norms": merge.norms,
    "apply": forward.apply,
    "grad_sums": backward.grad_sums,
    "coefficients": merge.coefficients,
    "stage_back": stage_back.stage_back,
    "source_back": backward.source_back,
    "reduce": merge.reduce,
}
NAMES: list[str] = _C.gpu_kernels()

GATHER = ("moments", "apply", "grad_sums", "stage_back", "source_back")

# A tile's values of all channels stay in registers; more channels than LARGEST are worked on in several blocks.
TILING = (1024, 16, 64, 792)
SMALLEST, LARGEST = 16, 64  # tl.dot needs sixteen


class TritonKernels:
    """What `fastnas.ops.gpu.Gpu` runs on: Triton's compiler, or its interpreter on CPU tensors."""

    tiling: Tiling = TILING

    def run(self, launches: Sequence[_C.GpuLaunch], tensors: Tensors) -> None:
        """Put all launches, in their order, on the current stream of the tensors' device."""
        bases = tuple(tensors.bases)
        buffers = (tensors.params, tensors.floats, tensors.statistics, tensors.grads)
        with _on(tensors.table.device):
            for launch in launches:
                name = NAMES[launch.kernel]
                fixed = constants(name, launch)
                KERNELS[name][grid(name, launch)](
                    bases,
                    buffers,
                    tensors.table,
                    launch.list,
                    launch.count,
                    launch.state,
                    launch.images,
                    launch.channels,
                    launch.accumulate,
                    **fixed,
                    **options(fixed),
                )


def worked_on(name: str, launch: _C.GpuLaunch) -> int:
    """The most channels that a block of this kernel may have to work on: of what it writes."""
    return launch.in_channels if name == "source_back" else launch.out_channels


def constants(name: str, launch: _C.GpuLaunch) -> dict[str, int]:
    """Compile-time constants: pixels of a tile; channels that are gathered at once, and that a block works on.

    What resamples has instances of its own, so that the others keep their registers.
    """
    channels = worked_on(name, launch)
    block = min(LARGEST, max(SMALLEST, triton.next_power_of_2(channels)))
    result = {"P": max(launch.tile, 1), "C_IN": SMALLEST, "C": block}
    if name in GATHER:
        result["RESAMPLING"] = bool(launch.resample)
    return result | {"WHOLE": channels <= block} if name == "stage_back" else result


def options(constants: dict[str, int]) -> dict[str, Any]:
    """For the compiler: threads, so that one has eight values of a block at most; fused multiply-adds.

    Left to itself ptxas spills a few registers for the sake of occupancy; with a limit to use it does not.
    """
    warps = 8 if constants["P"] * constants["C"] > TILING[0] else 4
    return {"num_warps": warps, "enable_fp_fusion": True, "maxnreg": 255}


def grid(name: str, launch: _C.GpuLaunch) -> tuple[int, int, int]:
    """The plan's grid, and a third axis for blocks of channels where they do not depend on each other."""
    apart = name in ("moments", "norms", "apply", "grad_sums", "source_back")
    block = constants(name, launch)["C"]
    return launch.grid_x, launch.grid_y, -(-worked_on(name, launch) // block) if apart else 1


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device's current stream."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
