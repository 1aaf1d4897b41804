"""What a search found: decoded from α, kept in a file, drawn (`fastnas.genotype.draw`)."""

from fastnas.genotype.decode import decode_darts
from fastnas.genotype.file import dumps, load, save
from fastnas.genotype.genotype import DARTS_V1, DARTS_V2, INPUTS, CellGenotype, Genotype, GenotypeError

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
