"""Fair DARTS (Chu et al., ECCV 2020): candidates do not compete, and a loss drives each to be in or out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fastnas.search.config import SearchConfig
from fastnas.search.strategies.darts import Darts

if TYPE_CHECKING:
    from torch import Tensor

    from fastnas.data import ImageData
    from fastnas.nn import DartsSupernet


class FairDartsConfig(SearchConfig):
    """Defaults as for DARTS; the weight of the loss is the paper's."""

    strategy: Literal["fair-darts"] = "fair-darts"
    zero_one: float = Field(10.0, ge=0, description="Weight of the zero-one loss.")


class FairDarts(Darts[FairDartsConfig]):
    """Weights are σ(α), and α's loss has the zero-one loss added, -1/N·Σ (σ(α) - 1/2)², over all but `none`."""

    name = "fair-darts"
    summary = "sigmoid instead of softmax, and the zero-one loss (Chu et al., 2020)"
    options = FairDartsConfig

    def supernet(self, data: ImageData) -> DartsSupernet:
        """The network that is searched in."""
        import torch

        from fastnas.nn import DartsSupernet

        config = self.config
        shape = (config.channels, config.layers, len(data.classes), data.channels)
        return DartsSupernet(*shape, config.memory, config.backend, relaxation=torch.sigmoid)

    def penalty(self, alphas: list[Tensor], epoch: int) -> Tensor | float:
        """`none`, which adds nothing where weights do not compete, is left out, as from the paper's space."""
        import torch

        from fastnas.ops import DARTS_CANDIDATES

        columns = [i for i, name in enumerate(DARTS_CANDIDATES) if name != "none"]
        weights = torch.cat(alphas)[:, columns].sigmoid()
        return -self.config.zero_one * (weights - 0.5).square().mean()
