"""How large a derived network is, counted as the papers do."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch

from fastnas.nn.auto_deeplab import AutoDeepLabNetwork
from fastnas.nn.derived import DartsNetwork


class Counts(NamedTuple):
    """The size of a network, without an auxiliary head, which only training needs.

    Attributes:
        parameters: numbers that are trained.
        multiply_adds: those of all convolutions and linear layers for one image, which papers often call FLOPs; as two
            operations each they are twice as many.
    """

    parameters: int
    multiply_adds: int


def count(network: DartsNetwork | AutoDeepLabNetwork, channels: int, size: tuple[int, int]) -> Counts:
    """Counts a derived network, by `torch.utils.flop_counter`; computes nothing and changes nothing.

    Args:
        network: on any device, in any mode.
        channels, size: of an image that it is given; `size` is H and W.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    shapes = deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(1, channels, *size, device="meta"))
    named = network.named_parameters()
    parameters = sum(p.numel() for name, p in named if not name.startswith("auxiliary_head."))
    return Counts(parameters, counter.get_total_flops() // 2)
