"""Cells as pictures.

States go down a staircase from the cell's inputs to its last node. What leaves a state runs down from it and turns
right, through a plate that names the operation, into the node that sums it. Every plate has a row of its own between
two columns of states, so no label can cover another, whatever the cell.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastnas.genotype.genotype import INPUTS, CellGenotype, Genotype

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN, PLATE, GAP, ROW, RADIUS = (
    2.75,
    1.5,
    0.45,
    0.5,
    0.36,
)  # inches: between states, a plate, before it, between edges, a node
STATES = ("#4c566a", "#2f6db3", "#b3541e", "#2e7d4f", "#7b4ea3", "#a8324a", "#1d7a85")
FAMILIES = {"max": "#f3d9b1", "avg": "#f7e7c6", "skip": "#e2e5ea", "sep": "#cfe0f5", "dil": "#e4d3f2"}


def draw_cells(genotype: Genotype, stem: str | os.PathLike[str]) -> list[Path]:
    """Draw both cells, each as SVG and PNG.

    Args:
        stem: path without suffix; "-normal.svg" and so on are added.

    Returns:
        the files written.

    Raises:
        OSError: a file cannot be written.
    """
    return [
        path
        for name, title in (("normal", "Normal cell"), ("reduce", "Reduction cell"))
        for path in draw_cell(getattr(genotype, name), title, f"{os.fspath(stem)}-{name}")
    ]


def draw_cell(cell: CellGenotype, title: str, stem: str | os.PathLike[str]) -> list[Path]:
    """Draw one cell as SVG and PNG; see `draw_cells`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = _levels(cell)
    last = len(levels) - 1
    width, height = COLUMN * last + 2.6, -levels[last] + 1.5
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.9, width - 0.9), ylim=(levels[last] - 0.6, 0.9))
    axes.set_axis_off()
    axes.text(width - 1.1, 0.62, title, ha="right", va="center", fontsize=14, fontweight="bold", color="#222222")
    for node, edges in enumerate(cell.nodes):
        for row, (operation, source) in enumerate(edges):
            _draw_edge(axes, levels, source, INPUTS + node, _row(levels, INPUTS + node, row, len(edges)), operation)
    _draw_output(axes, levels, cell)
    for state in range(len(levels)):
        _draw_state(axes, state, levels[state])
    paths = [Path(f"{os.fspath(stem)}.svg"), Path(f"{os.fspath(stem)}.png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths


def _levels(cell: CellGenotype) -> list[float]:
    """Height of every state: a node is as far below the one before as its edges need."""
    levels = [0.0, -0.8]
    for edges in cell.nodes:
        levels.append(levels[-1] - 0.6 - ROW * max(1.0, len(edges) / 2 + 0.5))
    return levels


def _row(levels: list[float], state: int, row: int, rows: int) -> float:
    return levels[state] + ROW * ((rows - 1) / 2 - row)


def _draw_edge(axes: Axes, levels: list[float], source: int, target: int, y: float, operation: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, color = source * COLUMN, STATES[source % len(STATES)]
    rim = target * COLUMN - max(RADIUS**2 - (y - levels[target]) ** 2, 0) ** 0.5 - 0.03
    _draw_line(axes, [(x, levels[source]), (x, y), (rim, y)], color)
    box = FancyBboxPatch(
        (x + GAP, y - 0.15),
        PLATE,
        0.3,
        boxstyle="round,pad=0.02,rounding_size=0.1",
        fc=_fill(operation),
        ec=color,
        lw=1.2,
        zorder=3,
    )
    axes.add_patch(box)
    axes.text(
        x + GAP + PLATE / 2,
        y - 0.01,
        operation,
        ha="center",
        va="center",
        fontsize=10,
        color="#222222",
        zorder=4,
    )


def _draw_line(axes: Axes, points: list[tuple[float, float]], color: str) -> None:
    """An arrow with one rounded corner, which goes down first."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    (x, top), (_, y), (right, _) = points
    radius = min(0.18, abs(top - y))
    curve = Curve(
        [(x, top), (x, y + radius), (x, y), (x + radius, y), (right, y)],
        [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO],
    )
    style = "-|>,head_length=5,head_width=2.5"
    axes.add_patch(
        FancyArrowPatch(path=curve, arrowstyle=style, color=color, lw=1.6, fill=False, zorder=1, capstyle="round")
    )


def _draw_output(axes: Axes, levels: list[float], cell: CellGenotype) -> None:
    from matplotlib.patches import FancyBboxPatch

    x = COLUMN * (len(levels) - 1) + 1.0
    used = [levels[state] for state in cell.concat]
    for state in cell.concat:
        color = STATES[state % len(STATES)]
        axes.plot([state * COLUMN, x], [levels[state]] * 2, color=color, lw=1.6, ls=(0, (1, 1.5)), zorder=1)
    box = FancyBboxPatch(
        (x, min(used) - 0.2),
        0.34,
        max(used) - min(used) + 0.4,
        boxstyle="round,pad=0.02,rounding_size=0.12",
        fc="#222222",
        ec="none",
        zorder=3,
    )
    axes.add_patch(box)
    axes.text(
        x + 0.17,
        (max(used) + min(used)) / 2,
        "concatenate → $c_k$",
        color="white",
        rotation=270,
        ha="center",
        va="center",
        fontsize=10,
        zorder=4,
    )


def _draw_state(axes: Axes, state: int, y: float) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    x, color = state * COLUMN, STATES[state % len(STATES)]
    if state < INPUTS:
        axes.add_patch(
            FancyBboxPatch(
                (x - 0.45, y - 0.2),
                0.9,
                0.4,
                boxstyle="round,pad=0.02,rounding_size=0.1",
                fc=color,
                ec="none",
                zorder=3,
            )
        )
        axes.text(
            x,
            y,
            ("$c_{k-2}$", "$c_{k-1}$")[state],
            color="white",
            ha="center",
            va="center",
            fontsize=12,
            zorder=4,
        )
        return
    axes.add_patch(Circle((x, y), RADIUS, fc=color, ec="white", lw=1.5, zorder=3))
    axes.text(
        x,
        y,
        str(state - INPUTS),
        color="white",
        ha="center",
        va="center",
        fontsize=13,
        fontweight="bold",
        zorder=4,
    )


def _fill(operation: str) -> str:
    return FAMILIES.get(operation.split("_", maxsplit=1)[0], "#eeeeee")
