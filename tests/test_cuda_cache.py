"""The cache of compiled CUDA kernels; NVRTC is replaced, for it is not everywhere."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastnas.ops import cuda


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, object]]:
    """The options of every compilation."""
    calls: list[dict[str, object]] = []

    def compile_(options: dict[str, object]) -> bytes:
        calls.append(options)
        return repr(options).encode()

    nvrtc = SimpleNamespace(
        nvrtcVersion=lambda: (0, 12, 6), nvrtcGetSupportedArchs=lambda: (0, [50, 60, 70, 80, 86, 90])
    )
    monkeypatch.setattr(cuda, "_compile", compile_)
    monkeypatch.setattr(cuda, "_nvrtc", lambda: nvrtc)
    monkeypatch.setenv("FASTNAS_CACHE", str(tmp_path))
    return calls


def test_compiles_once_for_each_chip_and_dtype(calls: list[dict[str, object]]) -> None:
    for _ in range(2):
        for capability in ((6, 0), (9, 0)):
            for dtype in cuda.SCALARS:
                assert cuda.compiled(capability, dtype)
    assert len(calls) == 2 * len(cuda.SCALARS)


def test_other_sources_are_compiled_again(
    calls: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda.compiled((6, 0), torch.float32)
    other = tmp_path / "more.cuh"
    other.write_text("// more")
    before = cuda.sources()
    monkeypatch.setattr(cuda, "sources", lambda: [*before, other])
    cuda.compiled((6, 0), torch.float32)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 200])
def test_a_damaged_entry_is_compiled_again(calls: list[dict[str, object]], damage: bytes, tmp_path: Path) -> None:
    code = cuda.compiled((6, 0), torch.float32)
    (entry,) = (tmp_path / "cuda").iterdir()
    entry.write_bytes(damage)
    assert cuda.compiled((6, 0), torch.float32) == code
    assert cuda.compiled((6, 0), torch.float32) == code
    assert len(calls) == 2


def test_many_at_once_leave_one_entry(calls: list[dict[str, object]], tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: cuda.compiled((6, 0), torch.float32), range(32)))
    assert len(set(codes)) == 1
    assert len(list((tmp_path / "cuda").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    calls: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTNAS_CACHE", str(tmp_path / "file"))
    assert cuda.compiled((6, 0), torch.float32)


def test_takes_the_closest_chip_of_the_same_major_capability(calls: list[dict[str, object]]) -> None:
    cuda.compiled((8, 9), torch.float32)
    assert calls[0]["arch"] == "sm_86"


@pytest.mark.parametrize(("capability", "other"), [((12, 0), "a later"), ((3, 5), "an earlier")])
def test_says_which_pytorch_a_gpu_needs(
    calls: list[dict[str, object]], capability: tuple[int, int], other: str
) -> None:
    with pytest.raises(cuda.CudaError, match=f"this GPU has .*: install a PyTorch that is built for {other} CUDA"):
        cuda.compiled(capability, torch.float32)


def test_the_sources_are_part_of_the_package() -> None:
    names = [path.name for path in cuda.sources()]
    assert {"kernels.cu", "kernels.cuh", "job.h"} <= set(names)
