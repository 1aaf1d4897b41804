"""Builds fastnas._C: C++17, no torch headers, no torch libraries, each vector width with its own flags."""

import platform
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

X86 = platform.machine() in ("x86_64", "AMD64", "i686")
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"]
WIDTHS = {"kernels_avx2": AVX2, "kernels_avx512": AVX512, "peak_avx2": AVX2, "peak_avx512": AVX512}


class BuildExtension(build_ext):
    """Adds the flags of a vector width to the files that are compiled for it."""

    def build_extensions(self) -> None:
        compile_file = self.compiler._compile

        def compile_for_width(obj, src, ext, cc_args, extra, pp_opts):
            compile_file(obj, src, ext, cc_args, [*extra, *WIDTHS.get(Path(src).stem, [])], pp_opts)

        self.compiler._compile = compile_for_width
        super().build_extensions()


files = [
    Path("csrc/bindings.cpp"),
    *sorted(path for part in ("cpu", "gpu", "bench", "swap") for path in Path("csrc", part).glob("*.cpp")),
]
sources = [str(path) for path in files if X86 or path.stem not in WIDTHS]
extension = Pybind11Extension(
    "fastnas._C",
    sources,
    cxx_std=17,
    depends=[str(path) for path in Path("csrc").rglob("*.h")],
    define_macros=[("FASTNAS_X86", None)] if X86 else [],
    # OpenMP is compiled in but not linked: torch's own runtime, in the process already, serves it (parallel.h).
    extra_compile_args=["-O3", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"],
)

with ParallelCompile("FASTNAS_BUILD_JOBS"):
    setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
