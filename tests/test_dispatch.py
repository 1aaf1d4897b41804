"""Which backend computes, and what is said where one cannot. GPUs are pretended."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fastnas.cli import main
from fastnas.ops import CANDIDATES, Norm, Spec
from fastnas.ops.backends import BackendError, choose
from fastnas.ops.candidates import Candidate, Depthwise
from fastnas.ops.functional import edge_spec

dispatch = import_module("fastnas.ops.backends")  # fastnas.ops has a function of this name

P100, A100 = ("Tesla P100-PCIE-16GB", (6, 0)), ("NVIDIA A100-SXM4-40GB", (8, 0))
K80 = ("Tesla K80", (3, 7))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    dispatch._warn_once.cache_clear()


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """GPUs and packages that are not there."""

    def these(*gpus: tuple[str, tuple[int, int]], packages: tuple[str, ...] = ("triton", "cuda.core")) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpus))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: gpus[i][0])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: gpus[i][1])
        monkeypatch.setattr(dispatch, "find_spec", lambda name: name if name in packages else None)

    return these


def tensor(device: str = "cuda:0", dtype: torch.dtype = torch.float32) -> Any:
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


def test_auto_takes_cuda_which_is_faster(pretend: Any) -> None:
    pretend(A100, P100)
    assert choose("auto", tensor("cuda:0")) == choose("auto", tensor("cuda:1")) == "cuda"
    assert choose("triton", tensor("cuda:0")) == "triton"
    assert choose("auto", tensor("cpu")) == "cpu"


def test_auto_takes_triton_where_cuda_core_is_missing(pretend: Any) -> None:
    pretend(A100, packages=("triton",))
    assert choose("auto", tensor()) == "triton"


def test_auto_falls_back_to_the_reference_and_says_why(pretend: Any) -> None:
    pretend(K80)
    with pytest.warns(UserWarning, match=r"'cuda' cannot run: .*6\.0, Tesla K80 has 3\.7.*'triton' cannot run: .*7\.0"):
        assert choose("auto", tensor()) == "reference"


@pytest.mark.parametrize(
    ("name", "x", "message"),
    [
        ("triton", tensor("cuda:1"), "needs a GPU of compute capability 7.0, Tesla P100-PCIE-16GB has 6.0"),
        ("triton", tensor("cpu"), "computes on CUDA tensors, got one on cpu"),
        ("cuda", tensor("cpu"), "computes on CUDA tensors, got one on cpu"),
        ("cpu", tensor("cuda:0"), "computes on CPU tensors, got one on cuda:0"),
        ("cuda", tensor(dtype=torch.float64), "computes in float32, float16, bfloat16, got float64"),
    ],
)
def test_a_backend_that_cannot_run_is_refused(name: str, x: Any, message: str, pretend: Any) -> None:
    pretend(A100, P100)
    with pytest.raises(BackendError, match=message):
        choose(name, x)


def spec(channels: int = 8, candidate: str = "sep_conv_3x3") -> Spec:
    return edge_spec(channels, (candidate,), 1, Norm())


def test_cuda_refuses_more_channels_than_a_block_holds(pretend: Any) -> None:
    pretend(P100)
    assert choose("cuda", tensor(), spec(512)) == "cuda"
    with pytest.raises(BackendError, match="at most 512 channels, got 513"):
        choose("cuda", tensor(), spec(513))
    with pytest.warns(UserWarning, match="at most 512 channels, got 600"):
        assert choose("auto", tensor(), spec(600)) == "reference"


def test_cuda_refuses_a_convolution_that_it_has_no_loop_for(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(A100)
    monkeypatch.setitem(CANDIDATES, "conv_7x7", Candidate(stages=(Depthwise(7),)))
    with pytest.raises(BackendError, match="sizes 1, 3, 5, got 7"):
        choose("cuda", tensor(), spec(candidate="conv_7x7"))
    assert choose("auto", tensor(), spec(candidate="conv_7x7")) == "triton"


@pytest.mark.parametrize(("name", "package"), [("triton", "triton"), ("cuda", "cuda.core")])
def test_a_missing_package_is_named_with_what_installs_it(name: str, package: str, pretend: Any) -> None:
    pretend(A100, packages=())
    with pytest.raises(BackendError, match=rf"{package} is not installed: pip install 'fastnas\[{name}\]'"):
        choose(name, tensor())


def test_an_amd_gpu_is_refused(pretend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(A100)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    with pytest.raises(BackendError, match="NVIDIA GPUs, this PyTorch is built for AMD's"):
        choose("triton", tensor())


def test_info_shows_what_can_run_on_which_gpu(pretend: Any) -> None:
    pretend(A100, P100)
    output = CliRunner().invoke(main, ["info"]).output
    assert f"backend triton        can run: on {A100[0]}\n" in output
    assert f"backend cuda          can run: on {A100[0]}, {P100[0]}\n" in output


def test_info_says_why_a_backend_cannot_run(pretend: Any) -> None:
    pretend(packages=("triton",))
    output = CliRunner().invoke(main, ["info"]).output
    assert "backend triton        cannot run: no CUDA device\n" in output
    assert (
        "backend cuda          cannot run: package cuda.core is not installed: pip install 'fastnas[cuda]'\n" in output
    )


def test_a_pretended_gpu_that_is_too_old_is_named(pretend: Any) -> None:
    pretend(K80)
    output = CliRunner().invoke(main, ["info"]).output
    assert "backend cuda          cannot run: it needs a GPU of compute capability 6.0, Tesla K80 has 3.7\n" in output
