"""Cells in words."""

from __future__ import annotations

from fastnas.genotype.genotype import INPUTS, CellGenotype

_INPUTS = ("the cell before the previous", "the previous cell")


def state_name(state: int) -> str:
    """What a state is called: an input of the cell, or a node."""
    return _INPUTS[state] if state < INPUTS else f"node {state - INPUTS}"


def cell_text(cell: CellGenotype) -> list[str]:
    """One line a node: the operations it sums, and what each reads."""
    return [
        f"node {i} = " + " + ".join(f"{operation}({state_name(source)})" for operation, source in node)
        for i, node in enumerate(cell.nodes)
    ]
