"""What an installed fastnas does, without a checkout of it: `python tests/installed.py`, in an environment that needs
nothing but the wheel. Every wheel is checked by it, with the oldest torch allowed and the newest."""

import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch

import fastnas.kernels
from fastnas.nn import DartsSupernet
from fastnas.ops import cuda

SMALL = ["--data", "digits", "--channels", "4", "--layers", "3", "--epochs", "1"]


def step(backend: str) -> list[torch.Tensor]:
    """Logits of a supernet in float64, and the gradients of its image, α and weights."""
    torch.manual_seed(0)
    network = DartsSupernet(4, 3, backend=backend).double()
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    logits = network(image)
    logits.square().sum().backward()
    return [logits, image.grad, *(weight.grad for weight in network.parameters() if weight.grad is not None)]


def fastnas_command(*arguments: str) -> None:
    command = Path(sysconfig.get_path("scripts"), "fastnas")
    subprocess.run([str(command), *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    where = Path(fastnas.__file__)
    assert where.is_relative_to(sysconfig.get_path("purelib")), f"not installed, but a checkout: {where}"
    assert {"kernels.cu", "job.h"} <= {path.name for path in cuda.sources()}, "the CUDA kernels' sources are missing"

    fused, reference = step("cpu"), step("reference")
    assert len(fused) == len(reference) > 2
    for ours, theirs in zip(fused, reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    with tempfile.TemporaryDirectory() as folder:
        search, network = f"{folder}/search", f"{folder}/network"
        fastnas_command("search", *SMALL, "--out", search)
        fastnas_command("retrain", search, *SMALL, "--out", network)
        fastnas_command("report", search, network, "--out", f"{folder}/report.html")
    print(f"fastnas {fastnas.__version__}, torch {torch.__version__}: same gradients; search, retrain and report ran")


if __name__ == "__main__":
    main()
