"""What a search found: decoded from α and β, kept in a file, drawn (`fastnas.genotype.draw`)."""

from typing import TYPE_CHECKING

from fastnas.genotype.decode import decode_auto_deeplab, decode_darts
from fastnas.genotype.file import dumps, load, save
from fastnas.genotype.genotype import INPUTS, SCALES, AutoDeepLabGenotype, CellGenotype, Genotype, GenotypeError
from fastnas.genotype.network import NAMED_PATHS, best_path, named_path

if TYPE_CHECKING:
    from fastnas.genotype.published import AUTO_DEEPLAB, DARTS_V1, DARTS_V2

__all__ = [
    "AUTO_DEEPLAB",
    "DARTS_V1",
    "DARTS_V2",
    "INPUTS",
    "NAMED_PATHS",
    "SCALES",
    "AutoDeepLabGenotype",
    "CellGenotype",
    "Genotype",
    "GenotypeError",
    "best_path",
    "decode_auto_deeplab",
    "decode_darts",
    "dumps",
    "load",
    "named_path",
    "save",
]


def __getattr__(name: str) -> Genotype | AutoDeepLabGenotype:
    # The first genotype that is made loads torch, to know the candidates; importing this package should not.
    if name in ("AUTO_DEEPLAB", "DARTS_V1", "DARTS_V2"):
        from fastnas.genotype import published

        value: Genotype | AutoDeepLabGenotype = getattr(published, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
