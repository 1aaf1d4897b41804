"""One mixed edge, forward and backward.  python -m pytest benchmarks/test_edge.py"""

from __future__ import annotations

import pytest
import stock
import torch
from modules import BATCH, NAMES, ROUNDS, SHAPES, forward_backward
from pytest_benchmark.fixture import BenchmarkFixture

from fastnas.nn import MixedOp

CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_edge(benchmark: BenchmarkFixture, channels: int, size: int, stride: int, name: str) -> None:
    benchmark.group = f"edge, C={channels}, {size}x{size}, stride {stride}"
    step = forward_backward(
        name,
        stock.MixedOp(channels, stride),
        lambda memory: MixedOp(channels, stride, memory=memory),
        [torch.randn(BATCH, channels, size, size)],
        torch.full((stock.CANDIDATES,), 1 / stock.CANDIDATES),
    )
    benchmark.pedantic(step, **ROUNDS)


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_candidates(benchmark: BenchmarkFixture, times: int, memory: str) -> None:
    """The four convolutions once, twice, four times: time should grow with arithmetic at most."""
    benchmark.group = f"edge of convolutions, {memory}"
    candidates = CONVOLUTIONS * times
    edge = MixedOp(16, 1, candidates, memory=memory)
    x = torch.randn(BATCH, 16, 32, 32, requires_grad=True)
    weights = torch.full((len(candidates),), 1 / len(candidates), requires_grad=True)
    grad = torch.randn_like(x)
    benchmark.pedantic(lambda: edge(x, weights).backward(grad), **ROUNDS)
