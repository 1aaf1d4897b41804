"""A genotype that is known already: the same commands as for one that was searched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from fastnas.errors import UserError
from fastnas.search.config import StrategyConfig, option
from fastnas.search.strategies.strategy import Strategy

if TYPE_CHECKING:
    from fastnas.data import ImageData
    from fastnas.genotype import Genotype
    from fastnas.search.loop import Report
    from fastnas.search.run import Row

PUBLISHED = ("DARTS_V1", "DARTS_V2")
_TRAINING = ("lr", "lr_min", "momentum", "weight_decay", "grad_clip")


class FixedConfig(StrategyConfig):
    """Nothing is trained; the images are those that `fastnas retrain` will take."""

    strategy: Literal["fixed"] = "fixed"
    genotype: str = Field(description=f"A genotype file, or one of {', '.join(PUBLISHED)}.")

    @field_validator("genotype")
    @classmethod
    def _absolute_path(cls, genotype: str) -> str:
        return genotype if genotype in PUBLISHED else os.path.abspath(genotype)

    @model_validator(mode="after")
    def _trains_nothing(self) -> FixedConfig:
        for name in _TRAINING:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{option(name)} is given, but --strategy fixed trains nothing")
        return self


class Fixed(Strategy[FixedConfig]):
    """A genotype from a file, or a published one by its name."""

    name = "fixed"
    summary = "--genotype, a file or a published one, without a search"
    options = FixedConfig
    epochs = 1

    def task(self, data: ImageData) -> Taken:
        """Its one row is the genotype."""
        return Taken(self._read())

    def _read(self) -> Genotype:
        from fastnas import genotype

        source = self.config.genotype
        if source in PUBLISHED:
            published: Genotype = getattr(genotype, source)
            return published
        try:
            return genotype.load(source)
        except genotype.GenotypeError as error:
            raise UserError(f"--genotype: {error}") from error


class Taken:
    """A run without training, whose history is the genotype."""

    steps = 0

    def __init__(self, genotype: Genotype) -> None:
        self._genotype = genotype

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """The genotype."""
        return genotype_row(self._genotype)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def genotype_row(genotype: Genotype) -> Row:
    """What the history keeps of a genotype that α does not stand for."""
    import json

    from fastnas.genotype import dumps

    return {"genotype": json.loads(dumps(genotype))}
