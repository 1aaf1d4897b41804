"""A found architecture as a value: which operations lead to each node of a cell."""

from __future__ import annotations

from dataclasses import dataclass

INPUTS = 2  # states 0 and 1: the outputs of the two cells before


def shorten(value: object) -> str:
    """`value` as a message shows it, at most 60 characters long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


class GenotypeError(ValueError):
    """A genotype, or the file that should hold one, is not valid; the message says where and what was expected."""


@dataclass(frozen=True)
class CellGenotype:
    """A cell.

    Attributes:
        nodes: for each node the (operation, source) pairs that it sums; source 0 is the output of the cell before the
            previous, 1 that of the previous cell, 2 and up are nodes.
        concat: the nodes whose concatenation is the cell's output, as states: 2 and up.

    Raises:
        GenotypeError: an unknown operation, a source that does not come before its node, or no node, or none in
            concat.
    """

    nodes: tuple[tuple[tuple[str, int], ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        from fastnas.ops.candidates import CANDIDATES  # its package loads torch, importing ours should not

        known = [name for name in CANDIDATES if name != "none"]
        if not self.nodes:
            raise GenotypeError("the cell has no nodes; expected at least one")
        for i, node in enumerate(self.nodes):
            if not node:
                raise GenotypeError(f"node {i} has no operation; expected at least one")
            for operation, source in node:
                if operation not in known:
                    expected = f"expected one of {', '.join(known)}"
                    raise GenotypeError(f"node {i} has operation {shorten(operation)}; {expected}")
                if not 0 <= source < INPUTS + i:
                    raise GenotypeError(
                        f"node {i} reads state {shorten(source)}; expected a state from 0 to {INPUTS + i - 1}"
                    )
        last = INPUTS + len(self.nodes) - 1
        if not self.concat or not all(INPUTS <= state <= last for state in self.concat):
            raise GenotypeError(f"concat is {shorten(list(self.concat))}; expected states from {INPUTS} to {last}")


@dataclass(frozen=True)
class Genotype:
    """What a DARTS search finds: a cell that keeps the resolution and one that halves it."""

    normal: CellGenotype
    reduce: CellGenotype
