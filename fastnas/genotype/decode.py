"""From α to a genotype."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fastnas.genotype.genotype import INPUTS, AutoDeepLabGenotype, CellGenotype, Genotype
from fastnas.genotype.network import Beta, best_path

EDGES_PER_NODE = 2

Table = Iterable[Iterable[float]]  # lists, arrays, tensors


def decode_darts(normal: Table, reduce: Table, candidates: Sequence[str], steps: int = 4) -> Genotype:
    """The architecture that α stands for: each node keeps its two strongest edges, each edge its strongest operation.

    DARTS, §2.4. `none` competes on neither level. Of equals, the earlier edge and the earlier candidate win; a node
    lists its edges strongest first.

    Args:
        normal, reduce: α after softmax, (edges, len(candidates)), edges node by node.
        candidates: names of the columns.
        steps: nodes of a cell.

    Raises:
        ValueError: the tables do not have the shape that `candidates` and `steps` give, or hold NaN; or a candidate is
            not known, or there is none but `none`.
    """
    return Genotype(_decode_cell(normal, candidates, steps), _decode_cell(reduce, candidates, steps))


def decode_auto_deeplab(alpha: Table, beta: Beta, candidates: Sequence[str], steps: int = 5) -> AutoDeepLabGenotype:
    """The architecture that α and β stand for: the cell by the rule of `decode_darts`, the path by `best_path`.

    Auto-DeepLab, §4.3.

    Args:
        alpha: after softmax, (edges, len(candidates)), edges node by node.
        beta: before softmax, (layers, 4, 3), see `fastnas.genotype.network.log_transitions`.
        candidates: names of the columns of α.
        steps: nodes of a cell.

    Raises:
        ValueError: see `decode_darts` for α and `log_transitions` for β; or the path goes beyond scale 32.
    """
    return AutoDeepLabGenotype(_decode_cell(alpha, candidates, steps), best_path(beta))


def _decode_cell(table: Table, candidates: Sequence[str], steps: int) -> CellGenotype:
    if not set(candidates) - {"none"}:
        raise ValueError(f"candidates must name an operation besides none, got {list(candidates)}")
    weights = [[float(weight) for weight in row] for row in table]
    edges = sum(INPUTS + i for i in range(steps))
    if len(weights) != edges or any(len(row) != len(candidates) for row in weights):
        widths = sorted({len(row) for row in weights})
        raise ValueError(f"α must be ({edges}, {len(candidates)}), got {len(weights)} rows of {widths}")
    for edge, row in enumerate(weights):
        if any(map(math.isnan, row)):
            raise ValueError(f"α must be numbers, got NaN on edge {edge}")
    nodes, start = [], 0
    for i in range(steps):
        best = [_strongest(weights[start + source], candidates) for source in range(INPUTS + i)]
        sources = sorted(range(INPUTS + i), key=lambda source: -best[source][1])[:EDGES_PER_NODE]
        nodes.append(tuple((best[source][0], source) for source in sources))
        start += INPUTS + i
    return CellGenotype(tuple(nodes), tuple(range(INPUTS, INPUTS + steps)))


def _strongest(row: Sequence[float], candidates: Sequence[str]) -> tuple[str, float]:
    kept = [(name, weight) for name, weight in zip(candidates, row, strict=True) if name != "none"]
    return max(kept, key=lambda pair: pair[1])
