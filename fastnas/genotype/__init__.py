"""What a search found: decoded from α, kept in a file, drawn (`fastnas.genotype.draw`)."""

from typing import TYPE_CHECKING

from fastnas.genotype.decode import decode_darts
from fastnas.genotype.file import dumps, load, save
from fastnas.genotype.genotype import INPUTS, CellGenotype, Genotype, GenotypeError

if TYPE_CHECKING:
    from fastnas.genotype.published import DARTS_V1, DARTS_V2

__all__ = [
    "DARTS_V1",
    "DARTS_V2",
    "INPUTS",
    "CellGenotype",
    "Genotype",
    "GenotypeError",
    "decode_darts",
    "dumps",
    "load",
    "save",
]


def __getattr__(name: str) -> Genotype:
    # The first genotype that is made loads torch, to know the candidates; importing this package should not.
    if name in ("DARTS_V1", "DARTS_V2"):
        from fastnas.genotype import published

        value: Genotype = getattr(published, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
