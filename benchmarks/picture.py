"""Time and peak memory over the batch size, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from contestants import FAST, LEAN, STOCK, STOCK_CHECKPOINTED, STOCK_LAST
from isolated import OUT_OF_MEMORY
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, ScalarFormatter

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers say the same in grey.
STYLES = {
    STOCK: ("#d55e00", "s"),
    STOCK_LAST: ("#e69f00", "D"),
    STOCK_CHECKPOINTED: ("#cc79a7", "^"),
    FAST: ("#0072b2", "o"),
    LEAN: ("#009e73", "v"),
}

Found = Mapping[str, Mapping[int, Mapping[str, object] | str]]


def draw(results: Found, title: str, limit: int, stem: Path) -> list[Path]:
    """Draws to `stem`.svg and `stem`.png.

    Args:
        results: of each network and batch size, the seconds of every round and the peak's bytes, or why there are none.
        title: of the figure.
        limit: bytes that a network could use.
        stem: path without a suffix.

    Returns:
        The paths.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title)
    time, memory = figure.subplots(1, 2)
    for name, found in results.items():
        figures = {batch: figure for batch, figure in found.items() if not isinstance(figure, str)}
        failed = [batch for batch, figure in found.items() if isinstance(figure, str) and OUT_OF_MEMORY in figure]
        _curve(time, name, {n: median(f["seconds"]) / n * 1e3 for n, f in figures.items()}, failed)
        _curve(memory, name, {n: f["peak"] / 1e6 for n, f in figures.items()}, failed, limit / 1e6)
    _panel(time, "time of forward + backward", "ms an image", results)
    _panel(memory, "peak memory over what was resident before", "MB", results)
    memory.axhline(limit / 1e6, color="#777777", linewidth=1, linestyle=":")
    memory.annotate("available", (0.01, limit / 1e6), xycoords=("axes fraction", "data"), va="bottom", color="#777777")
    handles, labels = time.get_legend_handles_labels()
    cross = Line2D([], [], color="#777777", marker="x", linestyle="none", markersize=8, markeredgewidth=2)
    figure.legend([*handles, cross], [*labels, OUT_OF_MEMORY], loc="outside lower center", ncols=6, frameon=False)
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths


def _curve(axes: Axes, name: str, values: Mapping[int, float], failed: list[int], top: float | None = None) -> None:
    """A line, and a cross at the first batch size that did not fit: at `top`, or as high as the line got."""
    colour, marker = STYLES[name]
    batches = list(values)
    axes.plot(batches, list(values.values()), color=colour, marker=marker, markersize=6, linewidth=1.8, label=name)
    if failed and values:
        height = top or values[batches[-1]]
        axes.plot([batches[-1], failed[0]], [values[batches[-1]], height], color=colour, linewidth=1, linestyle=":")
        axes.plot(failed[0], height, color=colour, marker="x", markersize=9, markeredgewidth=2.2)


def _panel(axes: Axes, title: str, label: str, results: Found) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    batches = sorted({batch for found in results.values() for batch in found})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.get_major_formatter().set_scientific(False)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("batch size")
    axes.set_ylabel(label)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
