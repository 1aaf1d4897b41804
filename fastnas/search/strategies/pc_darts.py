"""PC-DARTS (Xu et al., ICLR 2020): partial channels and edge normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fastnas.search.config import SearchConfig
from fastnas.search.strategies.darts import Darts

if TYPE_CHECKING:
    from fastnas.data import ImageData
    from fastnas.nn import DartsSupernet


class PCDartsConfig(SearchConfig):
    """The defaults are the paper's for CIFAR-10 (§4.2) and its code's."""

    strategy: Literal["pc-darts"] = "pc-darts"
    batch_size: int = Field(256, ge=2, description="Images in a batch, of each half of the training set.")
    channels: int = Field(16, ge=4, multiple_of=4, description="Width of the first cells, a multiple of 4.")
    lr: float = Field(0.1, gt=0, description="Learning rate of the weights at the start of its schedule.")
    lr_min: float = Field(0.0, ge=0, description="Learning rate of the weights at its end.")
    alpha_lr: float = Field(6e-4, gt=0, description="Learning rate of the architecture's Adam.")
    warmup: float = Field(0.3, ge=0, lt=1, description="Share of the epochs in which only the weights are trained.")


class PCDarts(Darts[PCDartsConfig]):
    """Candidates are searched on a quarter of the channels, edges are weighted by β, see `PCDartsSupernet`."""

    name = "pc-darts"
    summary = "partial channels and edge normalisation (Xu et al., 2020)"
    options = PCDartsConfig

    def supernet(self, data: ImageData) -> DartsSupernet:
        """The network that is searched in."""
        from fastnas.nn import PCDartsSupernet

        config = self.config
        shape = (config.channels, config.layers, len(data.classes), data.channels)
        return PCDartsSupernet(*shape, config.memory, config.backend)

    def searches(self, epoch: int) -> bool:
        """α and β rest at first (15 epochs of 50 in the paper), until the weights tell candidates apart."""
        return epoch >= round(self.config.warmup * self.config.epochs)
