"""A found architecture as a value: which operations lead to each node of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INPUTS = 2  # states 0 and 1: the outputs of the two cells before
SCALES = 4  # of Auto-DeepLab's trellis: an image divided by 4, 8, 16, 32


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


@dataclass(frozen=True)
class AutoDeepLabGenotype:
    """What an Auto-DeepLab search finds: one cell for all layers, and the scale at which each layer works.

    Attributes:
        cell: 5 nodes of two operations each in the paper. `dil_conv_*` are its atrous convolutions.
        path: for each layer 0, 1, 2 or 3, for an image divided by 4, 8, 16, 32. The stem before it ends at 0.

    Raises:
        GenotypeError: the path is empty, leaves the trellis, or goes by more than one scale from layer to layer.
    """

    cell: CellGenotype
    path: tuple[int, ...]

    def __post_init__(self) -> None:
        check_path(self.path)


def check_path(path: Sequence[int]) -> None:
    """Refuse what is no path through the trellis.

    Raises:
        GenotypeError: the path is empty, leaves the trellis, or goes by more than one scale from layer to layer.
    """
    if not path:
        raise GenotypeError("the path has no layers; expected at least one")
    before = 0
    for layer, scale in enumerate(path):
        lowest, highest = max(before - 1, 0), min(before + 1, SCALES - 1)
        if not lowest <= scale <= highest:
            expected = f"expected a scale from {lowest} to {highest}"
            raise GenotypeError(f"layer {layer} of the path is at scale {shorten(scale)}; {expected}")
        before = scale
