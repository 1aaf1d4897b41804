"""Compiles the CUDA kernels for every chip, without one.

python -m tools.gpu_gates.cuda_kernels          writes docs/gpu-kernels-cuda.json and .md
python -m tools.gpu_gates.cuda_kernels --check  fails where it is worse than the committed table

Two compilers: NVRTC 12.6, which users of a P100 have (extra `fastnas[cuda]`, cuda-bindings 12.9 and
nvidia-cuda-nvrtc-cu12 12.6), and nvcc 13.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
from pathlib import Path

from fastnas.ops.cuda import SCALARS, SOURCES, THREADS
from tools.gpu_gates.report import Kernel, Wanted, main, occupancy

NVRTC_ARCHS, NVCC_ARCHS = (60, 70, 80, 90), (75, 80, 90, 100)
NVRTC, NVCC = (12, 6), 13
NAMES = {"float": "fp32", "Half": "fp16", "Bfloat": "bf16"}
ENTRY = re.compile(
    r"Compiling entry function 'fastnas_(?P<name>\w+)'.*?(?P<spills>\d+) bytes spill stores.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def by_nvrtc(scalar: str, arch: int) -> str:
    """What ptxas says of every kernel."""
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        std="c++17",
        arch=f"sm_{arch}",
        include_path=str(SOURCES / "cuda"),
        define_macro=[("FASTNAS_SCALAR", scalar)],
        ptxas_options=["-v"],
    )
    log = io.StringIO()
    Program((SOURCES / "cuda/kernels.cu").read_text(encoding="utf-8"), "c++", options).compile("cubin", logs=log)
    return log.getvalue()


def by_nvcc(scalar: str, arch: int) -> str:
    """The same."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++17", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v", f"-DFASTNAS_SCALAR={scalar}"]
        command += ["-o", str(Path(folder) / "kernels.cubin"), str(SOURCES / "cuda/kernels.cu")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def kernels(log: str, instance: str, arch: int) -> list[Kernel]:
    """The figures in what ptxas says."""
    found = []
    for entry in ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        registers, shared_bytes = int(entry["registers"]), int(shared[1]) if shared else 0
        fits = occupancy(arch, THREADS, registers, shared_bytes)
        found.append(Kernel("cuda", entry["name"], instance, arch, registers, int(entry["spills"]), shared_bytes, fits))
    return found


def compile_all(wanted: Wanted) -> list[Kernel]:
    """Every kernel, for the storage types, compilers and chips that are wanted."""
    from cuda.bindings import nvrtc

    version = nvrtc.nvrtcVersion()[1:]
    if version != NVRTC:
        raise SystemExit(f"the table is made with NVRTC {NVRTC[0]}.{NVRTC[1]}, found {version[0]}.{version[1]}")
    compiled = []
    for scalar in SCALARS.values():
        for name, archs, logged in (("NVRTC 12.6", NVRTC_ARCHS, by_nvrtc), (f"nvcc {NVCC}", NVCC_ARCHS, by_nvcc)):
            instance = f"{NAMES[scalar]}, {name}"
            for arch in archs:
                if wanted(instance, arch):
                    compiled += kernels(logged(scalar, arch), instance, arch)
    return sorted(compiled, key=lambda k: (k.kernel, k.instance, k.arch))


if __name__ == "__main__":
    main("cuda", compile_all, f"Compiled by NVRTC 12.6 and by nvcc {NVCC}; blocks of {THREADS} threads.")
