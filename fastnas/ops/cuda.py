"""The CUDA backend: compiles csrc/cuda for the GPU at hand when it is first used, and launches it.

NVRTC, which every CUDA build of PyTorch brings, compiles; `cuda.core` (extra `fastnas[cuda]`) leads to it. Neither is
imported before a kernel is wanted.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastnas.ops.candidates import Depthwise
from fastnas.ops.gpu import Tensors
from fastnas.ops.spec import Spec

if TYPE_CHECKING:
    from fastnas._C import GpuLaunch

THREADS = 128  # of a block; csrc/cuda/block.cuh has the same, and the same tiles
ELEMENTS, LEAST, MOST = 16 * THREADS, 4, THREADS
CHANNELS = ELEMENTS // LEAST
"""Channels that a state may have at most: LEAST pixels of all of them fit a block's shared memory."""
BLOCKS = 792  # of a launch that sums up gradients of weights: as many as an H100 holds at once

SOURCES = Path(__file__).parent.parent / "csrc"
SCALARS = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat"}


WINDOWS = (1, 3, 5)  # sizes of depthwise convolutions that window.cuh has loops for


class CudaError(RuntimeError):
    """A kernel could not be compiled, loaded or launched; the message says why."""


def lacks(spec: Spec) -> str | None:
    """What the kernels lack to compute the cell; None if nothing."""
    if max(spec.channels) > CHANNELS:
        return f"it computes states of at most {CHANNELS} channels, got {max(spec.channels)}"
    sizes = {s.kernel for _, _, kind in spec.walk() for s in kind.stages if isinstance(s, Depthwise)}
    if not sizes <= set(WINDOWS):
        return f"it has depthwise convolutions of sizes {', '.join(map(str, WINDOWS))}, got {max(sizes)}"
    return None


class TensorsArgument(ctypes.Structure):
    """`Tensors` of csrc/cuda/block.cuh."""

    _fields_ = (
        ("bases", ctypes.c_void_p * 9),
        *((name, ctypes.c_void_p) for name in ("params", "floats", "statistics", "grads", "table")),
    )

    @classmethod
    def of(cls, tensors: Tensors) -> TensorsArgument:
        others = (tensors.params, tensors.floats, tensors.statistics, tensors.grads, tensors.table)
        return cls(tuple(t.data_ptr() for t in tensors.bases), *(t.data_ptr() for t in others))


class CudaKernels:
    """The kernels of csrc/cuda; see `fastnas.ops.gpu.Kernels`."""

    name = "cuda"
    tiling = (ELEMENTS, LEAST, MOST, BLOCKS)

    def run(self, launches: Sequence[GpuLaunch], tensors: Tensors) -> None:
        """Put all launches, in their order, on the current stream of the tensors' device.

        Compiles where `load` has not been called.

        Raises:
            CudaError: the kernels cannot be compiled, or CUDA refuses.
        """
        from fastnas import _C

        device, given = tensors.params.device, TensorsArgument.of(tensors)
        with torch.cuda.device(device):
            functions = load(device, tensors.bases[0].dtype)
            stream = torch.cuda.current_stream(device).cuda_stream
            result = _C.gpu_launch(_launch_kernel(), functions, launches, ctypes.addressof(given), THREADS, stream)
        if result != 0:
            raise CudaError(f"CUDA failed: {_driver().CUresult(result)!r}")


@cache
def load(device: torch.device, dtype: torch.dtype) -> list[int]:
    """The kernels for a device and a dtype, compiled and loaded. To be called before a CUDA graph is captured.

    Raises:
        CudaError: they cannot be compiled; the message says why.
    """
    from cuda.core import ObjectCode

    from fastnas import _C

    with torch.cuda.device(device):
        torch.cuda.current_stream(device)  # gives the device its context
        code = ObjectCode.from_cubin(compiled(torch.cuda.get_device_capability(device), dtype))
        kernels = [code.get_kernel(f"fastnas_{name}") for name in _C.gpu_kernels()]
        # A function belongs to a context, and getting it loads it there; a kernel would be loaded by its first launch.
        _keep.append(code)
        return [int(_check(_driver().cuKernelGetFunction(kernel.handle))[1]) for kernel in kernels]


_keep: list[Any] = []  # loaded code, which its functions do not keep alive


def compiled(capability: tuple[int, int], dtype: torch.dtype) -> bytes:
    """The kernels' machine code for GPUs of a compute capability, from the cache on disk if it is there.

    Needs no GPU.
    """
    architecture = _architecture(capability)
    options = {"std": "c++17", "arch": architecture, "define_macro": [("FASTNAS_SCALAR", SCALARS[dtype])]}
    path = _cache_folder() / f"{_key(options)}.cubin"
    code = _read(path)
    if code is None:
        code = _compile(options)
        _write(path, code)
    return code


def sources() -> list[Path]:
    """The files that are compiled."""
    return sorted([*(SOURCES / "cuda").glob("*.cu*"), SOURCES / "gpu/job.h"])


def _compile(options: dict[str, Any]) -> bytes:
    from cuda.core import Program, ProgramOptions

    text = (SOURCES / "cuda/kernels.cu").read_text(encoding="utf-8")
    try:
        program = Program(text, "c++", ProgramOptions(include_path=str(SOURCES / "cuda"), **options))
        return bytes(program.compile("cubin").code)
    except Exception as error:
        raise CudaError(f"NVRTC cannot compile the CUDA kernels for {options['arch']}: {error}") from error


def _architecture(capability: tuple[int, int]) -> str:
    """The closest that NVRTC knows; machine code also runs on later GPUs of the same major capability."""
    major, minor = capability
    version = ".".join(map(str, _nvrtc_version()))
    known = _check(_nvrtc().nvrtcGetSupportedArchs())[1]
    suitable = [arch for arch in known if 10 * major <= arch <= 10 * major + minor]
    if not suitable:
        other = "an earlier" if 10 * major < min(known) else "a later"
        raise CudaError(
            f"NVRTC {version} compiles for compute capability {min(known) / 10} to {max(known) / 10}, this GPU has "
            f"{major}.{minor}: install a PyTorch that is built for {other} CUDA"
        )
    return f"sm_{max(suitable)}"


def _key(options: dict[str, Any]) -> str:
    """Differs where anything differs that the code depends on."""
    digest = hashlib.sha256(repr((sorted(options.items()), _nvrtc_version())).encode())
    for path in sources():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def _cache_folder() -> Path:
    return Path(os.environ.get("FASTNAS_CACHE") or Path.home() / ".cache/fastnas") / "cuda"


def _read(path: Path) -> bytes | None:
    """What `_write` wrote; None where there is nothing, or something else."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    checksum, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == checksum else None


def _write(path: Path, code: bytes) -> None:
    """All or nothing, whoever else writes the same; nothing where the folder cannot be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(file.name, path)
    except OSError:
        return


@cache
def _nvrtc() -> Any:
    from cuda.bindings import nvrtc

    return nvrtc


@cache
def _launch_kernel() -> int:
    """Where cuLaunchKernel is, for C++ to call: a step has hundreds of launches."""
    library = ctypes.CDLL("nvcuda" if os.name == "nt" else "libcuda.so.1")
    return ctypes.cast(library.cuLaunchKernel, ctypes.c_void_p).value or 0


@cache
def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _nvrtc_version() -> tuple[int, int]:
    try:
        _, major, minor = _check(_nvrtc().nvrtcVersion())
    except RuntimeError as error:
        raise CudaError(
            f"NVRTC cannot be loaded ({error}): install the nvidia-cuda-nvrtc of your PyTorch's CUDA, and "
            "cuda-bindings of the same major version"
        ) from error
    return major, minor


def _check(result: tuple[Any, ...]) -> tuple[Any, ...]:
    if int(result[0]) != 0:
        raise CudaError(f"CUDA failed: {result[0]!r}")
    return result
