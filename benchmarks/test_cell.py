"""One cell, forward and backward.  python -m pytest benchmarks/test_cell.py"""

from __future__ import annotations

import pytest
import stock
import torch
from modules import BATCH, NAMES, ROUNDS, SHAPES, forward_backward
from pytest_benchmark.fixture import BenchmarkFixture

from fastnas.nn import Cell


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_cell(benchmark: BenchmarkFixture, channels: int, size: int, stride: int, name: str) -> None:
    benchmark.group = f"cell, C={channels}, {size}x{size}, stride {stride}"
    width = stock.NODES * channels
    arguments = (width, width, channels, stride == 2, False)
    step = forward_backward(
        name,
        stock.Cell(*arguments),
        lambda memory: Cell(*arguments, memory=memory),
        [torch.randn(BATCH, width, size, size) for _ in range(2)],
        torch.full((stock.EDGES, stock.CANDIDATES), 1 / stock.CANDIDATES),
    )
    benchmark.pedantic(step, **ROUNDS)
