"""The compiled part: it knows nothing of torch, shares its threads, and runs on every vector width."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fastnas import _C
from fastnas.nn import MixedOp
from fastnas.threads import using_threads

LIBRARY = Path(_C.__file__)


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_includes_and_links_no_torch() -> None:
    needed = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"NEEDED.*\[(.*)\]", needed)
    assert libraries
    assert not [name for name in libraries if re.search("torch|c10|gomp|omp", name)]
    sources = Path(__file__).parent.parent.joinpath("csrc").rglob("*.[ch]*")
    assert not [path for path in sources if re.search(r"#include\s*[<\"](torch|ATen|c10)", path.read_text())]


def test_no_code_of_one_width_can_replace_another_s() -> None:
    """The linker keeps one copy of an inline function: each must carry its width's namespace in its name."""
    symbols = subprocess.run(["nm", "-C", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    shared: dict[str, set[str]] = {}
    for line in symbols.splitlines():
        match = re.match(r"\S+ [WVuT] (.*)", line)
        if match and re.search(r"fastnas::(baseline|avx2|avx512)::", match[1]):
            continue
        if match:
            shared.setdefault(match[1], set()).add(line)
    vector = [name for name in shared if re.search(r"__vector|Vec<|Sum<", name)]
    assert not vector


def test_objects_of_wide_kernels_define_nothing_outside_their_namespace(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    for width, flags in (
        ("avx2", ["-mavx2", "-mfma"]),
        ("avx512", ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]),
    ):
        for part in ("cpu/kernels", "bench/peak"):
            target = tmp_path / f"{width}.o"
            source = root / "csrc" / f"{part}_{width}.cpp"
            command = ["g++", "-std=c++17", "-O1", "-fPIC", "-Wno-psabi", *flags, "-c", str(source), "-o", str(target)]
            subprocess.run(command, check=True, capture_output=True)
            symbols = subprocess.run(
                ["nm", "-C", "--defined-only", target], capture_output=True, text=True, check=True
            ).stdout
            weak = [line for line in symbols.splitlines() if re.match(r"\S+ [WVu] ", line)]
            assert weak
            assert all(f"fastnas::{width}::" in line for line in weak), weak


@pytest.mark.parametrize("width", ["baseline", "avx2", "avx512"])
def test_every_vector_width_computes_the_same(width: str) -> None:
    flags = Path("/proc/cpuinfo").read_text()
    if {"avx2": "avx2", "avx512": "avx512dq"}.get(width, "") not in flags:
        pytest.skip(f"this processor has no {width}")
    if _C.vector_width() == width:
        pytest.skip(f"tests/test_operator.py runs with {width}")
    root = Path(__file__).parent
    table = [
        str(root / "test_operator.py"),
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "float64 or layout or special or (float32 and not trellis)",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *table],
        capture_output=True, text=True, check=False, env=os.environ | {"FASTNAS_VECTOR_WIDTH": width},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (
        run(
            "from fastnas.ops import backends; print(*(b.reason for b in backends() if b.name == 'cpu'))",
            FASTNAS_VECTOR_WIDTH=width,
        )
        == f"C++, {width}"
    )


def test_an_unknown_vector_width_is_refused() -> None:
    out = run(
        "from fastnas import ops\nimport torch\ntry: ops.backends()\nexcept RuntimeError as error: print(error)",
        FASTNAS_VECTOR_WIDTH="mmx",
    )
    assert "must be avx512, avx2 or baseline" in out
    assert "got mmx" in out


def test_one_thread_pool_serves_torch_and_us() -> None:
    code = """
import os, torch
torch.set_num_threads(2)
from fastnas.nn import MixedOp
x, edge = torch.randn(8, 16, 32, 32), MixedOp(16, 1)
torch.nn.functional.conv2d(x, torch.randn(16, 16, 3, 3)); torch.randn(2000, 2000) @ torch.randn(2000, 2000)
before = len(os.listdir("/proc/self/task"))
edge(x, torch.rand(8)).sum().backward()
print(len(os.listdir("/proc/self/task")) - before)
"""
    # Autograd's own machinery may start a thread for its device queue; the kernels may start none.
    assert int(run(code)) <= 0


def test_threads_do_not_change_what_is_computed() -> None:
    edge = MixedOp(16, 1).double()
    x, weights = torch.randn(5, 16, 9, 9).double(), torch.rand(8).double()
    results = []
    for count in (1, 2, 3):
        with using_threads(count):
            results.append(edge(x, weights))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_two_python_threads_do_not_disturb_each_other() -> None:
    edges = [MixedOp(8, 1).double() for _ in range(2)]
    x, weights = torch.randn(3, 8, 9, 9).double(), torch.rand(8).double()
    expected = [edge(x, weights) for edge in edges]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            for out, same in zip(pool.map(lambda edge: edge(x, weights), edges), expected, strict=True):
                assert torch.equal(out, same)


def test_scratch_memory_is_kept_and_given_back() -> None:
    MixedOp(16, 1)(torch.randn(4, 16, 16, 16), torch.rand(8)).sum()
    assert _C.workspace_bytes() > 0
    _C.release_workspaces()
    assert _C.workspace_bytes() == 0


def test_steps_do_not_grow() -> None:
    edge, x, weights = MixedOp(8, 1), torch.randn(4, 8, 16, 16), torch.rand(8)
    sizes = []
    for _ in range(30):
        edge(x, weights).sum().backward()
        sizes.append(_C.workspace_bytes())
    assert len(set(sizes[5:])) == 1


def test_import_without_the_compiled_part_says_so_once() -> None:
    code = """
import sys, warnings
sys.modules["fastnas._C"] = None
import torch, fastnas
from fastnas.nn import MixedOp
from fastnas.ops import backends
print(*(b.available for b in backends() if b.name == "cpu"))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    edge = MixedOp(4, 1)
    for _ in range(3): edge(torch.randn(2, 4, 5, 5), torch.rand(8)).sum().backward()
print(len(seen), seen[0].message)
"""
    first, second = run(code).splitlines()
    assert first == "False"
    assert second.startswith(
        "1 fastnas computes with its slow reference, since backend 'cpu' cannot run: the compiled part"
    )
