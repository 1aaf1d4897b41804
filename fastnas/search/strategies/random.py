"""Random search: the baseline that a search has to beat (Li and Talwalkar, UAI 2019; Yang et al., ICLR 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fastnas.search.config import RetrainConfig, StrategyConfig
from fastnas.search.strategies.fixed import Taken, genotype_row
from fastnas.search.strategies.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastnas.data import ImageData
    from fastnas.search.loop import Report, Task
    from fastnas.search.retrain import Retraining
    from fastnas.search.run import Row


class RandomConfig(StrategyConfig):
    """One genotype is drawn and nothing trained; or several, of which each is trained and the best taken."""

    strategy: Literal["random"] = "random"
    samples: int = Field(
        1, ge=1, description="Genotypes to draw; of more than one, each is trained and the best taken."
    )
    epochs: int = Field(10, ge=1, description="Passes over half of the training images, to train each of --samples.")
    batch_size: int = Field(64, ge=2, description="Images in a batch.")
    channels: int = Field(16, ge=1, description="Width of the first cells.")
    layers: int = Field(8, ge=3, description="Number of cells; two of them halve the resolution.")
    lr_min: float = Field(0.001, ge=0, description="Learning rate of the weights at its end.")
    cutout: int = Field(0, ge=0, description="Side in pixels of the square cut out of each training image; 0 for none.")


class Random(Strategy[RandomConfig]):
    """Every choice is uniform: of a node's two sources among the states before it, of their operations but `none`."""

    name = "random"
    summary = "a genotype drawn at random; of several --samples, the one that trains best"
    options = RandomConfig

    @property
    def epochs(self) -> int:
        """Passes of all samples together; one row if nothing is trained."""
        return 1 if self.config.samples == 1 else self.config.samples * self.config.epochs

    def task(self, data: ImageData) -> Task:
        """Nothing but the draw, or the training of each."""
        from fastnas.genotype.sample import random_darts
        from fastnas.ops import DARTS_CANDIDATES

        genotypes = random_darts(self.config.seed, DARTS_CANDIDATES, self.config.samples)
        return Taken(genotypes[0]) if len(genotypes) == 1 else _Samples(genotypes, data, self.config)

    def verdict(self, history: Sequence[Row]) -> Row:
        """The best sample so far: the first with the highest accuracy at the end of its training."""
        ends = history[self.config.epochs - 1 :: self.config.epochs] if self.config.samples > 1 else []
        return {"kept_epoch": max(ends, key=lambda row: float(row["val_accuracy"]))["epoch"]} if ends else {}


class _Samples:
    """Trains one network after the other on one half of the training images and validates it on the other."""

    def __init__(self, genotypes: Sequence[Any], data: ImageData, config: RandomConfig) -> None:
        from fastnas.data import halves
        from fastnas.data.dataset import Selection

        train, val = (Selection(data.train, half) for half in halves(data.train.labels, config.seed))
        self._genotypes, self._data = genotypes, replace(data, train=train, val=val)
        shared = {name: value for name, value in config.model_dump().items() if name in RetrainConfig.model_fields}
        self._config = RetrainConfig(**shared, auxiliary=False, drop_path=0.0)
        self._begin(0)

    def _begin(self, sample: int) -> None:
        from fastnas.nn import DartsNetwork
        from fastnas.search.device import find_device
        from fastnas.search.retrain import Retraining

        shape = (self._config.channels, self._config.layers, len(self._data.classes))
        network = DartsNetwork(self._genotypes[sample], *shape, in_channels=self._data.channels)
        network.to(find_device(self._config.device))
        self._sample, self._training = sample, Retraining(network, self._data, self._config)

    @property
    def steps(self) -> int:
        """Training steps in a pass."""
        training: Retraining = self._training
        return training.steps

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """A pass of the sample whose turn it is."""
        sample, turn = divmod(epoch, self._config.epochs)
        if sample != self._sample:
            self._begin(sample)
        row = self._training.train_epoch(turn, report)
        return {"sample": sample + 1, **row, **genotype_row(self._genotypes[sample])}

    def state_dict(self) -> dict[str, Any]:
        """The sample that is trained, and its training."""
        return {"sample": self._sample, "training": self._training.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._begin(state["sample"])
        self._training.load_state_dict(state["training"])
