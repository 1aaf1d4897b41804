"""Compiles the Triton kernels for every chip that they support, without one.

python -m tools.gpu_gates.triton_kernels          writes docs/gpu-kernels-triton.json and .md
python -m tools.gpu_gates.triton_kernels --check  fails where it is worse than the committed table
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from fastnas.ops import DARTS_CANDIDATES, Edge, Norm, Spec
from fastnas.ops.compiled import compiled
from tools.gpu_gates.report import WARP, Kernel, Wanted, main, occupancy

ARCHS = (70, 75, 80, 90, 100)
DTYPES = ("fp32", "fp16", "bf16")
CHANNELS = (16, 32, 64, 128, 256)
TRELLIS_CHANNELS = (8, 16, 32, 64)
WITHOUT_ACTIVATIONS = ("norms", "coefficients", "reduce")


@dataclass(frozen=True)
class Instance:
    """A kernel with its compile-time constants."""

    kernel: str
    dtype: str
    constants: tuple[tuple[str, int], ...]
    arch: int

    @property
    def name(self) -> str:
        """The constants that tell it from other instances."""
        constants = dict(self.constants)
        sizes = f"{constants['C']} channels × {constants['P']} pixels"
        several = ", several blocks" if constants.get("WHOLE") is False else ""
        resampling = ", resampling" if constants.get("RESAMPLING") else ""
        return f"{self.dtype}, {sizes}{several}{resampling}"


def cell(channels: int, stride: int) -> Spec:
    """A DARTS cell of two nodes (its kernels do not depend on how many there are), of inputs four times as wide.

    Auto-DeepLab's cells have the same candidates and widths; what they have besides is in `resampling`.
    """
    given = channels if channels >= 128 else 4 * channels
    edges = [
        Edge(0, 2, stride, ("relu_conv_bn" if stride == 1 else "factorized_reduce",)),
        Edge(1, 3, 1, ("relu_conv_bn",)),
        Edge(2, 4, stride if stride == 1 else 1, DARTS_CANDIDATES),
        Edge(3, 5, stride, DARTS_CANDIDATES) if stride == 1 else Edge(2, 5, 1, DARTS_CANDIDATES),
    ]
    norms = sum(kind.norms for edge in edges for kind in edge.kinds)
    return Spec((given, given, *[channels] * 4), 2, tuple(edges), (4, 5), (Norm(),) * norms)


def resampling(channels: int) -> Spec:
    """What cells of five nodes at half and at twice the width become where they enter one of Auto-DeepLab's."""
    edges = (Edge(0, 2, 2, ("resize_conv_bn",)), Edge(1, 3, 1, ("resize_conv_bn",), like=2))
    return Spec((5 * channels // 2, 10 * channels, channels, channels), 2, edges, (2, 3), (Norm(),) * 2)


def cells() -> Iterator[tuple[Spec, list[tuple[int, int]]]]:
    """Cells, and the sizes of their inputs."""
    for channels, stride in product(CHANNELS, (1, 2)):
        yield cell(channels, stride), [(32, 32), (32, 32) if stride == 1 else (16, 16)]
    for channels in TRELLIS_CHANNELS:
        yield resampling(channels), [(64, 64), (16, 16)]


def instances() -> Iterator[Instance]:
    """What the launch plans of such cells need, forward and backward."""
    from fastnas.kernels.launch import NAMES, TritonKernels, constants

    found: dict[tuple[str, tuple[tuple[str, int], ...]], None] = {}
    for spec, sizes in cells():
        planner = compiled(spec.text)
        launches = [
            *planner.plan_forward(64, sizes, "lean", TritonKernels.tiling).launches,
            *planner.plan_backward(64, sizes, "lean", TritonKernels.tiling, (True, True, True)).launches,
        ]
        for launch in launches:
            name = NAMES[launch.kernel]
            found[name, tuple(constants(name, launch).items())] = None
    for (name, values), arch in product(sorted(found, key=lambda key: (NAMES.index(key[0]), key[1])), ARCHS):
        for dtype in DTYPES[: 1 if name in WITHOUT_ACTIVATIONS else None]:
            yield Instance(name, dtype, values, arch)


def build(instance: Instance) -> Kernel:
    """Compile an instance and read what `cuobjdump` says of it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastnas.kernels.launch import KERNELS, options

    constants = dict(instance.constants)
    signature: dict[str, object] = {
        "bases": (f"*{instance.dtype}",) * 9,
        "buffers": ("*fp32",) * 4,
        "table": "*i64",
        **dict.fromkeys(("jobs", "count", "state", "images", "channels", "accumulate"), "i32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    source = ASTSource(fn=KERNELS[instance.kernel], signature=signature, constexprs=constants)
    how = options(constants)
    kernel = triton.compile(source, target=GPUTarget("cuda", instance.arch, WARP), options=how)
    registers, spills = _resources(kernel.asm["cubin"])
    shared = kernel.metadata.shared
    fits = occupancy(instance.arch, how["num_warps"] * WARP, registers, shared)
    return Kernel("triton", instance.kernel, instance.name, instance.arch, registers, spills, shared, fits)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of stack: these kernels have none but what ptxas spills."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", said)
    if not found:
        raise RuntimeError(f"cuobjdump does not say what the kernel uses: {said}")
    return int(found[1]), int(found[2]) + int(found[3])


def compile_all(wanted: Wanted) -> list[Kernel]:
    """Every instance that is wanted, on all processors."""
    chosen = [instance for instance in instances() if wanted(instance.name, instance.arch)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(build, chosen, chunksize=4))


if __name__ == "__main__":
    main(
        "triton",
        compile_all,
        "`python -m tools.gpu_gates.triton_kernels` writes this page, `--check` compares with it "
        "(docs/gpu.md names the kernels).",
    )
