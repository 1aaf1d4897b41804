"""Sizes of derived networks against counts by hand, and by looking at every layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastnas.genotype import AUTO_DEEPLAB, DARTS_V2, CellGenotype, Genotype
from fastnas.nn import AutoDeepLabNetwork, DartsNetwork, count

CELL = CellGenotype(((("sep_conv_3x3", 0), ("skip_connect", 1)), (("dil_conv_5x5", 2), ("max_pool_3x3", 1))), (2, 3))


def test_a_small_network_counted_by_hand() -> None:
    network = DartsNetwork(Genotype(CELL, CELL), 2, 1, 3, auxiliary=True, in_channels=1)  # its only cell reduces
    stem = 24 * 6 * 9  # 4×6 pixels, 1 to 6 channels
    preprocessing = 2 * 24 * 6 * 4
    separable = 2 * (6 * 4 * 9 + 6 * 4 * 4)  # 2×3 pixels from here on, 4 channels
    skip, dilated = 2 * 6 * 4 * 2, 6 * 4 * 25 + 6 * 4 * 4
    parameters = 66 + 64 + 120 + 24 + 124 + 27  # batch norms and the classifier's bias among them
    expected = parameters, stem + preprocessing + separable + skip + dilated + 8 * 3
    assert count(network, 1, (4, 6)) == expected


def multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Every output of a layer is a sum of as many products as it has weights for one."""
    return output.numel() * layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (DartsNetwork(DARTS_V2, 4, 5, 3, stem="imagenet"), (65, 48)),
        (AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3), (33, 40)),
        (AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3, atrous="separable"), (33, 40)),
    ],
    ids=["darts", "auto-deeplab", "separable"],
)
def test_it_is_the_sum_over_layers_and_changes_nothing(network: Any, size: tuple[int, int]) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = count(network, 3, size)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    seen = []
    for module in network.eval().modules():
        module.register_forward_hook(lambda layer, _, output: seen.append(multiply_adds(layer, output)))
    network(torch.randn(1, 3, *size))
    assert found == (sum(p.numel() for p in network.parameters()), sum(seen))


def test_the_papers_networks() -> None:
    assert count(DartsNetwork(DARTS_V2, 36, 20, 10, auxiliary=True), 3, (32, 32)) == (3_349_342, 528_359_040)
