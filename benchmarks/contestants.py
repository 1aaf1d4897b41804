"""The networks that are measured against each other, with the same weights and images, and their steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import stock
import stock_trellis
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import AutoDeepLabSupernet, DartsSupernet

STOCK = "stock"
STOCK_LAST = "stock channels_last"
STOCK_CHECKPOINTED = "stock checkpointed"
FAST = "fastnas fast"
LEAN = "fastnas lean"
MEMORY = {FAST: "fast", LEAN: "lean"}


class Sizes(Protocol):
    """Which search network, and the sizes of it and of a batch of its images, (batch, 3, size, size)."""

    size: int
    batch: int
    classes: int

    def stock(self, checkpointed: bool) -> nn.Module:
        """The network in plain PyTorch."""

    def fused(self, memory: str, backend: str) -> nn.Module:
        """Ours, whose state dict has the same names."""

    def label_shape(self) -> tuple[int, ...]:
        """Of a batch."""


@dataclass(frozen=True)
class Setting:
    """DARTS."""

    channels: int
    layers: int
    size: int
    batch: int
    classes: int = 10

    def __str__(self) -> str:
        return f"C={self.channels}, L={self.layers}, {self.size}x{self.size}, batch {self.batch}"

    def stock(self, checkpointed: bool) -> nn.Module:
        return stock.Network(self.channels, self.layers, self.classes, checkpointed=checkpointed)

    def fused(self, memory: str, backend: str) -> nn.Module:
        return DartsSupernet(self.channels, self.layers, self.classes, memory=memory, backend=backend)

    def label_shape(self) -> tuple[int, ...]:
        return (self.batch,)


@dataclass(frozen=True)
class TrellisSetting:
    """Auto-DeepLab."""

    filters: int
    layers: int
    size: int
    batch: int
    atrous: str = "separable"
    steps: int = 5
    classes: int = 19

    def __str__(self) -> str:
        sizes = f"F={self.filters}, B={self.steps}, L={self.layers}"
        return f"Auto-DeepLab, {sizes}, {self.atrous} atrous candidates, crop {self.size}, batch {self.batch}"

    def stock(self, checkpointed: bool) -> nn.Module:
        if checkpointed:
            raise NotImplementedError("the stock Auto-DeepLab network is not checkpointed")
        return stock_trellis.Network(self.filters, self.steps, self.layers, self.classes, self.atrous)

    def fused(self, memory: str, backend: str) -> nn.Module:
        sizes = (self.filters, self.steps, self.layers, self.classes)
        return AutoDeepLabSupernet(*sizes, memory=memory, backend=backend, atrous=self.atrous)

    def label_shape(self) -> tuple[int, ...]:
        return (self.batch, self.size, self.size)


@dataclass
class Contestant:
    """A network with two batches: one to train weights on, one to train alphas on."""

    network: nn.Module
    training: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        self.parameters = list(self.network.parameters())

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def forward_backward(self) -> None:
        """Forward and backward of the whole network, with every gradient."""
        self.clear_gradients()
        self.loss(self.training).backward()

    def clear_gradients(self) -> None:
        """As an optimiser does; `Module.zero_grad` walks thousands of modules first."""
        for p in self.parameters:
            p.grad = None

    def search_step(self, phase_aware: bool) -> Callable[[], None]:
        """The first-order DARTS step: alphas on one batch, then weights on the other, each with its optimiser.

        Public code computes every gradient in both phases. With `phase_aware`, a phase asks for those it uses.
        """
        weights, alphas = self.network.weight_parameters(), self.network.arch_parameters()
        sgd = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4, fused=True)
        adam = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

        def gradients(unused: list[nn.Parameter], batch: tuple[Tensor, Tensor]) -> None:
            self.clear_gradients()
            for p in unused:
                p.requires_grad_(not phase_aware)
            self.loss(batch).backward()
            for p in unused:
                p.requires_grad_(True)

        def step() -> None:
            gradients(weights, self.validation)
            adam.step()
            gradients(alphas, self.training)
            nn.utils.clip_grad_norm_(weights, 5)
            sgd.step()

        return step


def make(name: str, setting: Sizes, seed: int = 0, backend: str = "auto") -> Contestant:
    """The contestant of this name; all that share setting and seed have the same weights and images."""
    torch.manual_seed(seed)
    network = setting.stock(checkpointed=name == STOCK_CHECKPOINTED)
    if name in MEMORY:
        weights, network = network.state_dict(), setting.fused(MEMORY[name], backend)
        network.load_state_dict(weights)
    layout = torch.channels_last if name == STOCK_LAST else torch.contiguous_format
    torch.manual_seed(seed)
    batches = [
        (
            torch.randn(setting.batch, 3, setting.size, setting.size).contiguous(memory_format=layout),
            torch.randint(setting.classes, setting.label_shape()),
        )
        for _ in range(2)
    ]
    return Contestant(network.to(memory_format=layout), *batches)
