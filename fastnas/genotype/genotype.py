"""A found architecture as a value: which operations lead to each node of a cell."""

from __future__ import annotations

from dataclasses import dataclass

from fastnas.ops.candidates import CANDIDATES

INPUTS = 2  # states 0 and 1: the outputs of the two cells before


class GenotypeError(ValueError):
    """A genotype, or the file that should hold one, is not valid; the message says where and what was expected."""


@dataclass(frozen=True)
class CellGenotype:
    """A cell.

    Attributes:
        nodes: for each node the (operation, source) pairs that it sums; source 0 is the output of the cell before the
            previous, 1 that of the previous cell, 2 and up are nodes.
        concat: the states whose concatenation is the cell's output.

    Raises:
        GenotypeError: an unknown operation, or a source that does not come before its node.
    """

    nodes: tuple[tuple[tuple[str, int], ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for i, node in enumerate(self.nodes):
            if not node:
                raise GenotypeError(f"node {i} has no operation; expected at least one")
            for operation, source in node:
                if operation not in CANDIDATES or operation == "none":
                    known = ", ".join(name for name in CANDIDATES if name != "none")
                    raise GenotypeError(f"node {i} has operation {operation!r}; expected one of {known}")
                if not 0 <= source < INPUTS + i:
                    raise GenotypeError(f"node {i} reads state {source}; expected a state from 0 to {INPUTS + i - 1}")
        last = INPUTS + len(self.nodes) - 1
        if not self.concat or not all(0 <= state <= last for state in self.concat):
            raise GenotypeError(f"concat is {list(self.concat)}; expected states from 0 to {last}")


@dataclass(frozen=True)
class Genotype:
    """What a DARTS search finds: a cell that keeps the resolution and one that halves it."""

    normal: CellGenotype
    reduce: CellGenotype


def _cell(*edges: tuple[str, int]) -> CellGenotype:
    nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
    return CellGenotype(nodes, tuple(range(INPUTS, INPUTS + len(nodes))))


# The cells that Liu et al. found and published with "DARTS: Differentiable Architecture Search" (ICLR 2019): V1 by
# first-order search, V2 by second-order search.
DARTS_V1 = Genotype(
    normal=_cell(
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
    ),
    reduce=_cell(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
    ),
)  # fmt: skip
DARTS_V2 = Genotype(
    normal=_cell(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    reduce=_cell(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
)  # fmt: skip
