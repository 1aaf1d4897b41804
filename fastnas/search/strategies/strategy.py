"""What a search strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from fastnas.search.config import StrategyConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastnas.data import ImageData
    from fastnas.search.loop import Task
    from fastnas.search.run import Row

Config = TypeVar("Config", bound=StrategyConfig)


class Strategy(ABC, Generic[Config]):
    """A way to find a genotype on a set of images.

    Its module imports PyTorch only inside functions, so that the command line can show its options at once.

    Attributes:
        name: what `--strategy` calls it, also the default of `options.strategy`.
        summary: a few words for `fastnas search --help`.
        options: its options; those that it shares with others bear the same names.
        config: the options of this run, none left open.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options: ClassVar[type[StrategyConfig]]

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    @abstractmethod
    def epochs(self) -> int:
        """Rows that the history of a whole run has."""

    @abstractmethod
    def task(self, data: ImageData) -> Task:
        """What is run. `fastnas.search.alphas.decode_row` makes a genotype of each of its rows.

        Raises:
            UserError: options and images do not fit.
        """

    def verdict(self, history: Sequence[Row]) -> Row:
        """What the last row of `history` records beside what the task says, see `fastnas.search.loop.Verdict`.

        `kept_epoch` is the number of the epoch whose genotype the run stands for, where that is not the last.
        """
        return {}
