"""Curves as geometry: the template draws them, the browser's theme colours them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from fastnas.report.entry import Entry

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 34  # from the axes to the picture's edge
_MOST_POINTS = 25  # an epoch each, beyond which a line says more than its points

_PANELS = {
    "loss": "Loss",
    "accuracy": "Accuracy",
    "miou": "Mean intersection over union",
    "alpha_entropy": "α entropy (1: all alike, 0: decided)",
    "lr": "Learning rate",
}
_PERCENT = ("accuracy", "miou")
_PARTS = ("train", "val")


@dataclass(frozen=True)
class Line:
    """A curve: whose, of which part of the images (or of none), and its points (epoch, value, x, y)."""

    run: int
    name: str
    part: str
    points: list[tuple[int, float, float, float]]

    @property
    def path(self) -> str:
        """As an SVG polyline has it."""
        return " ".join(f"{x:.1f},{y:.1f}" for *_, x, y in self.points)

    @property
    def dots(self) -> list[tuple[int, float, float, float]]:
        """Points that are drawn as such."""
        return self.points if len(self.points) <= _MOST_POINTS else []


@dataclass(frozen=True)
class Panel:
    """One picture: ticks are (label, place)."""

    title: str
    percent: bool
    lines: list[Line]
    x_ticks: list[tuple[str, float]]
    y_ticks: list[tuple[str, float]]

    @property
    def rows(self) -> list[tuple[int, list[float | None]]]:
        """The same as a table: each epoch with the value of every line, None where it has none."""
        columns = [{epoch: value for epoch, value, *_ in line.points} for line in self.lines]
        return [(epoch, [column.get(epoch) for column in columns]) for epoch in sorted({e for c in columns for e in c})]

    def text(self, value: float) -> str:
        """A value as the page shows it."""
        return f"{value:.1%}" if self.percent else f"{value:.4g}"


def panels(runs: Sequence[tuple[int, Entry]]) -> list[Panel]:
    """The pictures of runs of one kind, each with its number on the page: what any of them has in its history."""
    made = (_panel(key, title, runs) for key, title in _PANELS.items())
    return [panel for panel in made if panel.lines]


def _panel(key: str, title: str, runs: Sequence[tuple[int, Entry]]) -> Panel:
    parts = [(f"{part}_{key}", part) for part in _PARTS] + [(key, "")]
    curves = [
        (number, entry.name, part, [(row["epoch"], float(row[column])) for row in entry.history if column in row])
        for number, entry in runs
        for column, part in parts
    ]
    curves = [curve for curve in curves if curve[-1]]
    values = [value for *_, points in curves for _, value in points] or [0.0]
    epochs = [epoch for *_, points in curves for epoch, _ in points] or [1]
    y_ticks = _ticks(min(values), max(values))
    if key == "alpha_entropy":  # a range of its own would make noise of 1e-6 look like a decision
        y_ticks = _ticks(min(0.99, *values), 1.0)
    percent = key in _PERCENT
    low, high = y_ticks[0], y_ticks[-1]
    high = min(high, 1.0) if percent else high
    first, last = int(min(epochs)), int(max(*epochs, min(epochs) + 1))

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - first) / (last - first)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    return Panel(
        title,
        percent,
        [
            Line(number, name, part, [(epoch, value, x(epoch), y(value)) for epoch, value in points])
            for number, name, part, points in curves
        ],
        [(f"{tick:g}", x(tick)) for tick in _ticks(first, last, integer=True) if first <= tick <= last],
        [(f"{100 * tick:.3g}%" if percent else f"{tick:.4g}", y(tick)) for tick in y_ticks if tick <= high],
    )


def _ticks(low: float, high: float, integer: bool = False) -> list[float]:
    """Round numbers that enclose a range."""
    if high - low < 1e-9 * max(abs(high), 1e-9):
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    return [float(tick) for tick in MaxNLocator(5, integer=integer).tick_values(low, high)]
