"""β-DARTS (Ye et al., CVPR 2022): α is kept from running away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fastnas.search.config import SearchConfig
from fastnas.search.strategies.darts import Darts

if TYPE_CHECKING:
    from torch import Tensor


class BetaDartsConfig(SearchConfig):
    """Defaults as for DARTS; the weight of the loss is the paper's for its space."""

    strategy: Literal["beta-darts"] = "beta-darts"
    beta_decay: float = Field(50.0, ge=0, description="Weight that the loss on α reaches at the end; it starts at 0.")


class BetaDarts(Darts[BetaDartsConfig]):
    """α's loss has λ·log Σ exp(α) added, the mean over the edges of each cell; λ grows linearly with the epochs."""

    name = "beta-darts"
    summary = "a loss on log Σ exp(α) that grows with the epochs (Ye et al., 2022)"
    options = BetaDartsConfig

    def penalty(self, alphas: list[Tensor], epoch: int) -> Tensor | float:
        """Its gradient is λ·softmax(α): every step takes from each α in the share of its weight."""
        return self.config.beta_decay * epoch / self.config.epochs * sum(a.logsumexp(-1).mean() for a in alphas)
