"""Auto-DeepLab's architectures as pictures: the trellis of layers and scales with the chosen path, and the cell.

As the paper draws its network level (figures 1 and 2): layers from left to right, scales from fine to coarse downwards.
Ways are as wide and as dark as they are probable; the path lies under them as a broad band.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastnas.genotype.draw import INK, MARGIN, draw_cell, save_figure, shape_box, write_text
from fastnas.genotype.genotype import SCALES, AutoDeepLabGenotype, check_path
from fastnas.genotype.network import Beta, log_transitions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths are inches.
COLUMN, ROW = 0.95, 0.9
RADIUS = 0.2
HEAD = (0.8, 0.44)
LEFT, TOP, BOTTOM = 1.1, 1.25, 0.95  # from the outer nodes to the picture's edge
BAND = 13.0  # points
PATH, BAND_COLOR, WAY, IDLE = "#2f6db3", "#a9cbef", "#222222", "#d8dce3"


def draw_auto_deeplab(
    genotype: AutoDeepLabGenotype, path_stem: str | os.PathLike[str], beta: Beta | None = None
) -> list[Path]:
    """Draw the cell and the path through the trellis, each as SVG and PNG.

    Args:
        path_stem: path without suffix; "-cell.svg", "-cell.png", "-network.svg" and "-network.png" are added.
        beta: see `trellis_figure`.

    Returns:
        The files written.

    Raises:
        ValueError: see `trellis_figure`.
        OSError: a file cannot be written.
    """
    network = trellis_figure(genotype.path, "Network", beta)
    stem = os.fspath(path_stem)
    return draw_cell(genotype.cell, "Cell", f"{stem}-cell") + save_figure(network, f"{stem}-network")


def trellis_figure(path: Sequence[int], title: str, beta: Beta | None = None) -> Figure:
    """The picture of a path through the trellis.

    Args:
        path: the scale of each layer.
        beta: before softmax, (layers, 4, 3), see `fastnas.genotype.network.log_transitions`; without it all ways are
            drawn alike.

    The parts have names, as ids in an SVG: "band", "head", "head-text", "node-COLUMN-SCALE", and for the way from a
    column's scale to the next column's "way-COLUMN-SCALE-TARGET".

    Raises:
        ValueError: the path or β is not valid, or they are of different sizes.
    """
    from matplotlib.figure import Figure

    check_path(path)
    steps = None if beta is None else log_transitions(beta)
    if steps is not None and (len(steps), len(steps[0])) != (len(path), SCALES):
        raise ValueError(f"β must be ({len(path)}, {SCALES}, 3), got ({len(steps)}, {len(steps[0])}, 3)")
    right = COLUMN * len(path) + 2 * RADIUS + HEAD[0] + 2 * MARGIN
    # Few layers still leave room for the legend.
    right = max(right, 5.2)
    size = (LEFT + right, TOP + ROW * (SCALES - 1) + BOTTOM)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-LEFT, right), ylim=(-ROW * (SCALES - 1) - BOTTOM, TOP))
    axes.set_axis_off()
    axes.text(MARGIN - LEFT, TOP - MARGIN, title, va="center", fontsize=18, fontweight="bold", color=INK)
    points = [(COLUMN * column, -ROW * scale) for column, scale in enumerate((0, *path))]
    head = points[-1][0] + RADIUS + MARGIN + HEAD[0] / 2
    band = [*points, (head, points[-1][1])]
    style: dict[str, Any] = {"color": BAND_COLOR, "lw": BAND, "solid_capstyle": "round", "solid_joinstyle": "round"}
    axes.plot(*zip(*band, strict=True), zorder=1, clip_on=False, gid="band", **style)
    for column in range(len(path)):
        for scale in range(min(column + 1, SCALES)):
            for target in range(max(scale - 1, 0), min(scale + 2, SCALES)):
                strength = None if steps is None else math.exp(steps[column][scale][target - scale + 1])
                _draw_way(axes, column, scale, target, strength)
    _draw_nodes(axes, path)
    shape_box(axes, head, points[-1][1], *HEAD, fc=INK, gid="head")
    write_text(axes, head, points[-1][1], "ASPP", color="white", fontsize=12, gid="head-text")
    _draw_legend(axes, steps is not None)
    return figure


def _draw_way(axes: Axes, column: int, scale: int, target: int, strength: float | None) -> None:
    ends = [COLUMN * column, COLUMN * (column + 1)], [-ROW * scale, -ROW * target]
    name = f"way-{column}-{scale}-{target}"
    axes.plot(*ends, zorder=2, clip_on=False, solid_capstyle="butt", gid=name, **_way_style(strength))


def _way_style(strength: float | None) -> dict[str, Any]:
    if strength is None:
        return {"color": WAY, "lw": 0.8, "alpha": 0.35}
    return {"color": WAY, "lw": 0.5 + 5 * strength, "alpha": 0.12 + 0.88 * strength}


def _draw_nodes(axes: Axes, path: Sequence[int]) -> None:
    from matplotlib.patches import Circle

    for scale in range(SCALES):
        write_text(axes, -0.65, -ROW * scale, f"1/{4 << scale}", color=INK, fontsize=12)
    for column, chosen in enumerate((0, *path)):
        name = str(column) if column else "stem"
        write_text(axes, COLUMN * column, 0.5, name, color=INK, fontsize=12)
        for scale in range(min(column + 1, SCALES)):
            color = PATH if scale == chosen else IDLE
            center = (COLUMN * column, -ROW * scale)
            style: dict[str, Any] = {"ec": "white", "lw": 1.5, "zorder": 3, "clip_on": False}
            axes.add_patch(Circle(center, RADIUS, fc=color, gid=f"node-{column}-{scale}", **style))


def _draw_legend(axes: Axes, strengths: bool) -> None:
    """Below the trellis, from the left: the path's band, and ways of some probabilities."""
    y = -ROW * (SCALES - 1) - 0.62
    entries: list[tuple[str, dict[str, Any]]] = [("path", {"color": BAND_COLOR, "lw": BAND})]
    if strengths:
        entries += [(f"β = {strength:g}", _way_style(strength)) for strength in (0.1, 0.5, 1.0)]
    for place, (label, style) in enumerate(entries):
        x = -0.2 + 1.4 * place
        axes.plot([x, x + 0.4], [y, y], clip_on=False, solid_capstyle="butt", **style)
        axes.text(x + 0.55, y, label, va="center", color=INK, fontsize=11)
