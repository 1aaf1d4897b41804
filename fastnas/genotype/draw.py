"""Cells as pictures.

States go down a staircase from the cell's inputs to its last node. What leaves a state runs down from it and turns
right, through a plate that names the operation, into the node that sums it. Every edge has a row of its own and every
plate stands between two columns of states, so no label can cover another or a state, whatever the cell.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnas.genotype.genotype import INPUTS, CellGenotype, Genotype

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths are inches.
COLUMN = 2.6  # from one state to the next
ROW = 0.5  # from one edge of a node to the next
STEP = 0.85  # from the last edge of a node to the first of the next
RADIUS = 0.36  # of a node
PLATE = (1.5, 0.34)
PLATE_OFFSET = 1.15  # of a plate's middle from the state that it reads
INPUT = (0.9, 0.44)
OUTPUT = (0.56, 0.44)  # of one node; of more it is as high as they stand apart
OUTPUT_OFFSET = 1.0  # of the output's middle from the last node
MARGIN = 0.3

INK = "#222222"
STATES = ("#4c566a", "#2f6db3", "#b3541e", "#2e7d4f", "#7b4ea3", "#a8324a", "#1d7a85")
FAMILIES = {
    "max": "#f3d9b1",
    "avg": "#f7e7c6",
    "skip": "#e2e5ea",
    "sep": "#cfe0f5",
    "dil": "#e4d3f2",
    "dws": "#d5ebe8",
}


def draw_cells(genotype: Genotype, path_stem: str | os.PathLike[str]) -> list[Path]:
    """Draw both cells, each as SVG and PNG.

    Args:
        path_stem: path without suffix; "-normal.svg", "-normal.png", "-reduce.svg" and "-reduce.png" are added.

    Returns:
        The files written.

    Raises:
        OSError: a file cannot be written.
    """
    return [
        path
        for name, title in (("normal", "Normal cell"), ("reduce", "Reduction cell"))
        for path in draw_cell(getattr(genotype, name), title, f"{os.fspath(path_stem)}-{name}")
    ]


def draw_cell(cell: CellGenotype, title: str, path_stem: str | os.PathLike[str]) -> list[Path]:
    """Draw one cell as SVG and PNG; see `draw_cells`."""
    return save_figure(cell_figure(cell, title), path_stem)


def save_figure(figure: Figure, path_stem: str | os.PathLike[str]) -> list[Path]:
    """Write a figure as SVG, the same bytes every time, and as PNG."""
    paths = [Path(f"{os.fspath(path_stem)}.svg"), Path(f"{os.fspath(path_stem)}.png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths


def cell_figure(cell: CellGenotype, title: str) -> Figure:
    """The picture of a cell: inputs on the left, nodes, and on the right the output that concatenates them."""
    from matplotlib.figure import Figure

    levels = _levels(cell)
    left, right = -INPUT[0] / 2 - MARGIN, COLUMN * (len(levels) - 1) + OUTPUT_OFFSET + OUTPUT[0] / 2 + MARGIN
    bottom, top = levels[-1] - _stretch(cell, len(levels) - 1) - RADIUS - MARGIN, 1.1
    figure = Figure(figsize=(right - left, top - bottom))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    axes.text(left + MARGIN, top - MARGIN, title, va="center", fontsize=18, fontweight="bold", color=INK)
    for node, edges in enumerate(cell.nodes):
        for row, (operation, source) in enumerate(edges):
            _draw_edge(axes, cell, levels, source, INPUTS + node, row, operation)
    _draw_output(axes, cell, levels)
    for state, name in enumerate(("$c_{k-2}$", "$c_{k-1}$")):
        shape_box(axes, state * COLUMN, levels[state], *INPUT, fc=_color(state))
        write_text(axes, state * COLUMN, levels[state], name, color="white", fontsize=16)
    for state in range(INPUTS, len(levels)):
        _draw_node(axes, cell, state, levels[state])
    return figure


def _levels(cell: CellGenotype) -> list[float]:
    """The height of every state."""
    levels = [0.0, -0.8]
    for state in range(INPUTS, INPUTS + len(cell.nodes)):
        levels.append(levels[-1] - _spread(cell, state - 1) - STEP - _spread(cell, state))
    return levels


def _spread(cell: CellGenotype, state: int) -> float:
    """How far above and below a state its first and last edge arrive."""
    return 0.0 if state < INPUTS else ROW * (len(cell.nodes[state - INPUTS]) - 1) / 2


def _stretch(cell: CellGenotype, state: int) -> float:
    """Half the length by which a node of more than two edges is drawn out, so that all of them meet it."""
    return max(_spread(cell, state) - ROW / 2, 0.0)


def _color(state: int) -> str:
    return STATES[state % len(STATES)]


def _draw_edge(
    axes: Axes, cell: CellGenotype, levels: list[float], source: int, target: int, row: int, operation: str
) -> None:
    x, rise = source * COLUMN, _spread(cell, target) - ROW * row
    y = levels[target] + rise
    beyond = max(abs(rise) - _stretch(cell, target), 0.0)
    rim = target * COLUMN - (RADIUS**2 - beyond**2) ** 0.5 - 0.03
    _draw_arrow(axes, x, levels[source], rim, y, _color(source))
    fill = FAMILIES.get(operation.split("_", maxsplit=1)[0], "#eeeeee")
    shape_box(axes, x + PLATE_OFFSET, y, *PLATE, fc=fill, ec=_color(source), lw=1.2)
    write_text(axes, x + PLATE_OFFSET, y - 0.01, operation, color=INK, fontsize=12.5)


def _draw_arrow(axes: Axes, x: float, top: float, right: float, y: float, color: str) -> None:
    """Down from (x, top), round a corner, and right to (right, y)."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    corner = 0.18
    curve = Curve(
        [(x, top), (x, y + corner), (x, y), (x + corner, y), (right, y)],
        [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO],
    )
    style = "-|>,head_length=6,head_width=3"
    axes.add_patch(FancyArrowPatch(path=curve, arrowstyle=style, color=color, lw=1.8, zorder=1, clip_on=False))


def _draw_output(axes: Axes, cell: CellGenotype, levels: list[float]) -> None:
    x = COLUMN * (len(levels) - 1) + OUTPUT_OFFSET
    used = [levels[state] for state in cell.concat]
    for state in cell.concat:
        ends = [state * COLUMN, x], [levels[state]] * 2
        axes.plot(*ends, color=_color(state), lw=1.8, ls=(0, (1, 1.5)), zorder=1, clip_on=False)
    middle = (max(used) + min(used)) / 2
    shape_box(axes, x, middle, OUTPUT[0], max(used) - min(used) + OUTPUT[1], fc=INK)
    write_text(axes, x, middle, "$c_k$", color="white", fontsize=16)


def _draw_node(axes: Axes, cell: CellGenotype, state: int, y: float) -> None:
    from matplotlib.patches import Circle, Rectangle

    x, half = state * COLUMN, _stretch(cell, state)
    style: dict[str, Any] = {"fc": _color(state), "ec": "none", "zorder": 3, "clip_on": False, "snap": False}
    for end in (y - half, y + half):
        axes.add_patch(Circle((x, end), RADIUS, **style))
    axes.add_patch(Rectangle((x - RADIUS, y - half), 2 * RADIUS, 2 * half, **style))
    write_text(axes, x, y, str(state - INPUTS), color="white", fontsize=16, fontweight="bold")


def shape_box(axes: Axes, x: float, y: float, width: float, height: float, **style: Any) -> None:
    """A rectangle with rounded corners around (x, y); not clipped, as clipping puts random names into the SVG."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - width / 2, y - height / 2)
    shape = "round,pad=0,rounding_size=0.1"
    style = {"ec": "none"} | style
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=shape, zorder=3, clip_on=False, **style))


def write_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """A text around (x, y)."""
    axes.text(x, y, text, ha="center", va="center", zorder=4, **style)
