"""First-order DARTS (Liu et al., ICLR 2019), and where other searches with a supernet differ from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from fastnas.search.config import SearchConfig, StrategyConfig
from fastnas.search.strategies.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastnas.data import ImageData
    from fastnas.nn import DartsSupernet
    from fastnas.search.bilevel import Batch, BilevelSearch
    from fastnas.search.loop import Score
    from fastnas.search.run import Row

Config = TypeVar("Config", bound=SearchConfig)


class Darts(Strategy[Config]):
    """α descends the loss on its half of the images at the weights as they are: algorithm 1 with ξ = 0."""

    name = "darts"
    summary = "first-order DARTS (Liu et al., 2019)"
    options: ClassVar[type[StrategyConfig]] = SearchConfig

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        return self.config.epochs

    def task(self, data: ImageData) -> BilevelSearch:
        """The search with the supernet."""
        from fastnas.search.bilevel import BilevelSearch

        return BilevelSearch(self, self.supernet(data), data, self.config)

    def supernet(self, data: ImageData) -> DartsSupernet:
        """The network that is searched in."""
        from fastnas.nn import DartsSupernet

        config = self.config
        shape = (config.channels, config.layers, len(data.classes), data.channels)
        return DartsSupernet(*shape, config.memory, config.backend)

    def begin_epoch(self, search: BilevelSearch, epoch: int) -> None:
        """Sets what depends on the epoch, counted from 0, alone."""

    def searches(self, epoch: int) -> bool:
        """Whether α is trained in this epoch; otherwise the weights alone are."""
        return True

    def penalty(self, alphas: list[Tensor], epoch: int) -> Tensor | float:
        """What α's loss has added to the cross entropy; `alphas` are those of normal and reduction cells, (14, 8)."""
        return 0.0

    def verdict(self, history: Sequence[Row]) -> Row:
        """Stops when skip connections have dominated for `skip_patience` epochs."""
        from fastnas.search.stopping import stopped_by_skips

        return stopped_by_skips(history, self.config.skip_patience) if self.config.skip_patience else {}

    def alpha_gradient(self, search: BilevelSearch, val: Batch, train: Batch, score: Score) -> None:
        """Leaves in α's `grad` what a step follows, of several processes the mean over all.

        Args:
            search: has the supernet, the weights and their optimiser; all but α and its `grad` stay as they are.
            val: images and labels of α's half.
            train: those of the weights' half, on which the step of the weights that follows is made.
            score: counts the logits of `val`.
        """
        from fastnas.search.bilevel import frozen

        with frozen(search.weights):
            search.alpha_loss(val, score).backward()  # type: ignore[no-untyped-call]
