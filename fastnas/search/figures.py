"""Figures of a run: its curves, and α over the epochs of a search."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from fastnas.errors import UserError
from fastnas.genotype import INPUTS, AutoDeepLabGenotype, CellGenotype, Genotype
from fastnas.genotype.draw import draw_cells
from fastnas.genotype.trellis import draw_auto_deeplab
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.alphas import found_genotype, strengths
from fastnas.search.files import write_atomically
from fastnas.search.run import Row

# Okabe and Ito's palette, which colour-blind readers can tell apart, violet for its yellow; `none` is grey.
_COLOURS = ("#999999", "#e69f00", "#6a3d9a", "#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7")
_MUTED = "#777777"
_FEW_EPOCHS = 20


def draw_run(folder: Path, command: str, history: Sequence[Row]) -> list[tuple[str, Path]]:
    """Draws the run of `command` in `folder` into it, each figure as SVG and PNG.

    Returns:
        What was drawn, and where.

    Raises:
        UserError: a file cannot be written.
    """
    last = history[-1]
    genotype = found_genotype(folder, command, history)
    drawn = _draw_genotype(genotype, folder, last.get("beta"))
    if "train_loss" in last:
        drawn += _write(curves(history), folder / "curves", "Curves")
    if "alpha" in last:
        cells = {"normal": "Normal cell", "reduce": "Reduction cell", "cell": "Cell"}
        what = "strength" if "strength" in last else "weight, softmax(α)"
        for cell in last["alpha"]:
            values = torch.stack([strengths(row)[cell] for row in history])
            figure = alpha_figure(values, getattr(genotype, cell), f"{cells[cell]}: {what} of each candidate")
            drawn += _write(figure, folder / f"alpha-{cell}", f"α, {cell}")
    return drawn


def _draw_genotype(
    genotype: Genotype | AutoDeepLabGenotype, folder: Path, beta: list[list[list[float]]] | None
) -> list[tuple[str, Path]]:
    stem = folder / ("cells" if isinstance(genotype, Genotype) else "architecture")
    try:
        if isinstance(genotype, Genotype):
            return [("Cells", path) for path in draw_cells(genotype, stem)]
        return [("Architecture", path) for path in draw_auto_deeplab(genotype, stem, beta)]
    except OSError as error:
        raise UserError(f"{stem} cannot be drawn: {error.strerror}") from error


def curves(history: Sequence[Row]) -> Figure:
    """Loss and accuracy over the epochs; of segmentation also mIOU, of a search the α entropy."""
    searched = "alpha_entropy" in history[-1]
    parts = ("on the weights' half", "on α's half") if searched else ("training", "validation")
    kinds = {"loss": "loss", "accuracy": "accuracy", "miou": "mIOU"}
    shown = [kind for kind in kinds if f"train_{kind}" in history[-1]]
    figure = Figure(figsize=(4 * (len(shown) + searched), 3.2), layout="constrained")
    panels = figure.subplots(1, len(shown) + searched)
    for axes, kind in zip(panels, shown, strict=False):
        for part, label, colour in zip(("train", "val"), parts, ("#0072b2", "#d55e00"), strict=True):
            _curve(axes, history, f"{part}_{kind}", color=colour, label=label)
        axes.set_title(kinds[kind], fontsize="medium")
        axes.legend(frameon=False, fontsize="small")
        if kind != "loss":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if searched:
        lowest = _curve(panels[-1], history, "alpha_entropy", color="#009e73")
        panels[-1].set_title("α entropy (1: all alike, 0: decided)", fontsize="medium")
        # A range of its own would make noise of 1e-6 look like a decision.
        panels[-1].set_ylim(min(0.99, 1.05 * lowest - 0.05), 1.0)
    return figure


def _curve(axes: Axes, history: Sequence[Row], key: str, **style: str) -> float:
    """Draws what the epochs have of a figure: α's half is not gone through before α is trained."""
    epochs = [row["epoch"] for row in history if key in row]
    values = [float(row[key]) for row in history if key in row]
    marker = "o" if len(history) < _FEW_EPOCHS else ""
    axes.plot(epochs, values, marker=marker, markersize=3, clip_on=False, **style)  # type: ignore[arg-type]
    axes.set_xlabel("epoch")
    _plain(axes)
    return min(values, default=0.0)


def alpha_figure(weights: Tensor, cell: CellGenotype, title: str) -> Figure:
    """The weights of all candidates over the epochs, one panel for each edge of the cell.

    Rows are the nodes, columns what they read, so that the grid is the cell's wiring. Edges that the genotype
    keeps have a frame and the name of their operation.

    Args:
        weights: (epochs, edges, candidates), edges node by node.
        cell: what they decode to.
        title: of the figure.
    """
    low, high = float(weights.min()), float(weights.max())
    margin = 0.08 * (high - low) or 0.01
    steps = len(cell.nodes)
    figure = Figure(figsize=(3 + 2 * (steps + 1), 1 + 2 * steps), layout="constrained")
    figure.suptitle(f"{title}, over the epochs", fontsize="x-large")
    grid: Any = figure.subplots(steps, steps + 1, squeeze=False, sharex=True, sharey=True)
    edge = 0
    for node in range(steps):
        for source in range(steps + 1):
            axes = grid[node, source]
            if source >= INPUTS + node:
                axes.axis("off")
                continue
            kept = [name for name, kept_source in cell.nodes[node] if kept_source == source]
            _panel(axes, weights[:, edge], kept)
            edge += 1
    for source in range(steps + 1):
        top = grid[max(0, source - INPUTS + 1), source]
        top.annotate(f"from {_state(source)}", (0.5, 1.22), xycoords="axes fraction", ha="center", fontweight="bold")
    for node in range(steps):
        grid[node, 0].set_ylabel(f"to node {node}", fontweight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    grid[0, 0].set_ylim(low - margin, high + margin)
    _legend(figure)
    return figure


def _state(source: int) -> str:
    return ("cell k-2", "cell k-1")[source] if source < INPUTS else f"node {source - INPUTS}"


def _panel(axes: Axes, weights: Tensor, kept: Sequence[str]) -> None:
    epochs = range(1, len(weights) + 1)
    for name, colour, values in zip(DARTS_CANDIDATES, _COLOURS, weights.T.tolist(), strict=True):
        width = 2.6 if name in kept else 1.1
        axes.plot(epochs, values, color=colour, linewidth=width, linestyle=_line_style(name))
    _plain(axes)
    if kept:
        axes.set_title(kept[0], fontsize="medium")
        for spine in axes.spines.values():
            spine.set(visible=True, linewidth=1.6, color="black")


def _plain(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.tick_params(labelsize="small", color=_MUTED)
    axes.margins(x=0.02)


def _line_style(name: str) -> Literal["-", "--"]:
    return "--" if name == "none" else "-"


def _legend(figure: Figure) -> None:
    handles = [
        Line2D([], [], color=colour, linestyle=_line_style(name), label=name)
        for name, colour in zip(DARTS_CANDIDATES, _COLOURS, strict=True)
    ]
    figure.legend(
        handles=handles,
        title="framed: an edge that the genotype keeps,\nwith its operation in bold",
        loc="upper right",
        bbox_to_anchor=(0.99, 0.93),
        ncols=2,
        frameon=False,
    )


def _write(figure: Figure, stem: Path, what: str) -> list[tuple[str, Path]]:
    written = []
    for suffix, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], **options)
        path = stem.with_suffix(suffix)
        write_atomically(path, buffer.getvalue())
        written.append((what, path))
    return written
