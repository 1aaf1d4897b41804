"""The networks that are measured against each other, with the same weights, and the steps that are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from stock import Network
from torch import Tensor, nn

from fastnas.nn import DartsSupernet


@dataclass(frozen=True)
class Setting:
    """A network's size and its data's."""

    channels: int
    layers: int
    size: int
    batch: int
    classes: int = 10


@dataclass
class Contestant:
    """A network with a batch of its own memory layout."""

    name: str
    network: nn.Module
    images: Tensor
    labels: Tensor

    def forward_backward(self) -> None:
        """Forward and backward of the whole network, every gradient."""
        self.network.zero_grad(set_to_none=True)
        F.cross_entropy(self.network(self.images), self.labels).backward()

    def search_step(self) -> Callable[[], None]:
        """The first-order DARTS step: α on one batch, weights on another, with both optimisers."""
        weights, arch = self.network.weight_parameters(), self.network.arch_parameters()
        sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
        adam = torch.optim.Adam(arch, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
        fused = isinstance(self.network, DartsSupernet)

        def phase(trained: list[nn.Parameter], frozen: list[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
            # Stock DARTS computes all gradients in both phases; the fused engine computes those that are asked for.
            if fused:
                for p in frozen:
                    p.requires_grad_(False)
            self.network.zero_grad(set_to_none=True)
            F.cross_entropy(self.network(self.images), self.labels).backward()
            if optimiser is sgd:
                nn.utils.clip_grad_norm_(trained, 5)
            optimiser.step()
            for p in frozen:
                p.requires_grad_(True)

        def step() -> None:
            phase(arch, weights, adam)
            phase(weights, arch, sgd)

        return step


NAMES = ("stock", "stock channels_last", "stock checkpointed", "fastnas fast", "fastnas lean")


def make(name: str, setting: Setting, seed: int = 0) -> Contestant:
    """The contestant `name`, one of NAMES; all that share a setting and a seed have the same weights and images."""
    torch.manual_seed(seed)
    arguments = (setting.channels, setting.layers, setting.classes)
    network: nn.Module = Network(*arguments, checkpointed=name == "stock checkpointed")
    images = torch.randn(setting.batch, 3, setting.size, setting.size)
    labels = torch.randint(setting.classes, (setting.batch,))
    if name.startswith("fastnas"):
        stock, network = network, DartsSupernet(*arguments, memory=name.split()[1])
        network.load_state_dict(stock.state_dict())
    if name == "stock channels_last":
        network, images = network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    return Contestant(name, network, images, labels)
