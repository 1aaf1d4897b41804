"""GDAS (Dong and Yang, CVPR 2019): one candidate of every edge, drawn by Gumbel softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field, model_validator

from fastnas.search.config import SearchConfig
from fastnas.search.strategies.darts import Darts

if TYPE_CHECKING:
    from fastnas.data import ImageData
    from fastnas.nn import DartsSupernet, GdasSupernet
    from fastnas.search.bilevel import BilevelSearch


class GdasConfig(SearchConfig):
    """The defaults are the paper's (§4.1)."""

    strategy: Literal["gdas"] = "gdas"
    epochs: int = Field(250, ge=1, description="Passes over the training images.")
    temperature: float = Field(10.0, gt=0, description="Temperature of the draw in the first epoch.")
    temperature_min: float = Field(0.1, gt=0, description="Temperature of the draw in the last epoch.")

    @model_validator(mode="after")
    def _cooling(self) -> GdasConfig:
        if self.temperature_min > self.temperature:
            raise ValueError(
                f"--temperature-min is {self.temperature_min}, more than --temperature, {self.temperature}"
            )
        return self


class Gdas(Darts[GdasConfig]):
    """A step computes and trains the candidates that it draws, see `GdasSupernet`; the temperature falls linearly."""

    name = "gdas"
    summary = "one candidate of every edge a step, drawn by Gumbel softmax (Dong and Yang, 2019)"
    options = GdasConfig

    def supernet(self, data: ImageData) -> DartsSupernet:
        """The network that is searched in."""
        from fastnas.nn import GdasSupernet

        config = self.config
        shape = (config.channels, config.layers, len(data.classes), data.channels)
        return GdasSupernet(*shape, config.memory, config.backend)

    def begin_epoch(self, search: BilevelSearch, epoch: int) -> None:
        """Sets the temperature."""
        config = self.config
        progress = epoch / max(config.epochs - 1, 1)
        network = cast("GdasSupernet", search.network)
        network.temperature = config.temperature + progress * (config.temperature_min - config.temperature)
