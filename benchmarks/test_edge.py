"""One mixed edge, forward and backward.  python -m pytest benchmarks/test_edge.py"""

from __future__ import annotations

import pytest
import stock
import torch
from modules import BATCH, NAMES, ROUNDS, SHAPES, forward_backward
from pytest_benchmark.fixture import BenchmarkFixture

from fastnas.nn import MixedOp


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
