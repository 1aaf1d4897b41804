"""Architectures drawn at random from a search's own space: the baseline that a search has to beat."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fastnas.genotype.genotype import INPUTS, SCALES, AutoDeepLabGenotype, CellGenotype, Genotype

EDGES_PER_NODE = 2


def random_cell(generator: random.Random, candidates: Sequence[str], steps: int) -> CellGenotype:
    """A cell as decoding gives them: each node sums two operations besides `none`, of two states before it."""
    names = [name for name in candidates if name != "none"]
    nodes = tuple(
        tuple(
            (generator.choice(names), source)
            for source in sorted(generator.sample(range(INPUTS + step), EDGES_PER_NODE))
        )
        for step in range(steps)
    )
    return CellGenotype(nodes, tuple(range(INPUTS, INPUTS + steps)))


def random_darts(seed: int, candidates: Sequence[str], count: int = 1, steps: int = 4) -> list[Genotype]:
    """Pairs of cells, each choice uniform; with one seed the first ones are the same whatever `count` is.

    Args:
        seed: another seed gives other architectures.
        candidates: names of operations; `none` is left out.
        count: how many.
        steps: nodes of a cell.
    """
    generator = random.Random(seed)
    return [
        Genotype(random_cell(generator, candidates, steps), random_cell(generator, candidates, steps))
        for _ in range(count)
    ]


def random_auto_deeplab(seed: int, candidates: Sequence[str], layers: int = 12, steps: int = 5) -> AutoDeepLabGenotype:
    """A cell and a path, each choice uniform: at every layer among the ways that lead on inside the trellis.

    Args:
        seed: another seed gives another architecture.
        candidates: names of operations; `none` is left out.
        layers, steps: of the trellis and of the cell.
    """
    generator = random.Random(seed)
    cell = random_cell(generator, candidates, steps)
    path, level = [], 0
    for _ in range(layers):
        level = generator.choice([s for s in (level - 1, level, level + 1) if 0 <= s < SCALES])
        path.append(level)
    return AutoDeepLabGenotype(cell, tuple(path))
