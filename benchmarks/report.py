"""The tables that are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from contestants import STOCK, STOCK_LAST, Sizes
from rich.table import Table

Figure = float | str  # or why there is none


@dataclass
class Results:
    """What was measured at one setting: `seconds` of each round and `bytes`, by quantity and contestant."""

    setting: Sizes
    seconds: dict[str, dict[str, list[float] | str]] = field(default_factory=dict)
    bytes: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def medians(self) -> dict[str, dict[str, Figure]]:
        """Median seconds by quantity and contestant."""
        return {
            quantity: {name: t if isinstance(t, str) else median(t) for name, t in times.items()}
            for quantity, times in self.seconds.items()
        }


def results_table(results: Results) -> Table:
    """Times and memory, each with how many times as much the two stock layouts need."""
    batch = results.setting.batch
    table = Table("quantity", "network", title=str(results.setting), title_justify="left")
    for heading in ("a batch", "range of rounds", "an image", "stock / this", "channels_last / this"):
        table.add_column(heading, justify="right")
    for quantity, figures in results.medians().items():
        ranges = {name: _range(times) for name, times in results.seconds[quantity].items()}
        _add_section(
            table,
            quantity,
            figures,
            lambda name, t, ranges=ranges: (f"{t * 1e3:.1f} ms", ranges[name], f"{batch / t:.1f} / s"),
        )
    for quantity, figures in results.bytes.items():
        _add_section(table, quantity, figures, lambda _, b: (f"{b / 1e6:.1f} MB", "", f"{b / batch / 1e6:.2f} MB"))
    return table


def scaling_table(results: Results, one: str, many: str) -> Table:
    """How many times faster than with one thread."""
    table = Table("network", "times as fast as with one thread", title=many, title_justify="left")
    medians = results.medians()
    for name, single in medians[one].items():
        several = medians[many][name]
        failure = next((figure for figure in (single, several) if isinstance(figure, str)), None)
        table.add_row(name, failure or f"{single / several:.2f}x")
    return table


def batches_table(found: Mapping[str, Mapping[str, object] | str], setting: Sizes) -> Table:
    """Time and memory of every network at one batch size; its own processes, so times did not take turns."""
    table = Table("network", title=str(setting), title_justify="left")
    for heading in ("a batch", "an image", "peak", "peak an image"):
        table.add_column(heading, justify="right")
    for name, figures in found.items():
        if isinstance(figures, str):
            table.add_row(name, figures)
            continue
        seconds, highest = median(figures["seconds"]), figures["peak"] / 1e6
        times = (f"{seconds * 1e3:.1f} ms", f"{seconds / setting.batch * 1e3:.2f} ms")
        table.add_row(name, *times, f"{highest:.1f} MB", f"{highest / setting.batch:.2f} MB")
    return table


def errors_table(errors: Mapping[str, Mapping[str, float]] | str, names: Sequence[str], title: str) -> Table:
    """Largest relative errors against float64; beside ours, how many times stock's that is."""
    table = Table("largest relative error", *names, title=title, title_justify="left")
    if isinstance(errors, str):
        table.add_row(errors)
        return table
    for quantity, row in errors.items():
        ratios = {name: "" if name == STOCK else f" ({row[name] / row[STOCK]:.2f}x stock's)" for name in names}
        table.add_row(quantity, *(f"{row[name]:.1e}{ratios[name]}" for name in names))
    return table


def _add_section(
    table: Table, quantity: str, figures: Mapping[str, Figure], describe: Callable[[str, float], tuple[str, ...]]
) -> None:
    bases = [figures.get(name) for name in (STOCK, STOCK_LAST)]
    for name, figure in figures.items():
        label = quantity if name == STOCK else ""
        if isinstance(figure, str):
            table.add_row(label, name, figure)
            continue
        ratios = ["-" if base is None or isinstance(base, str) else f"{base / figure:.2f}x" for base in bases]
        table.add_row(label, name, *describe(name, figure), *ratios)
    table.add_section()


def _range(times: list[float] | str) -> str:
    return "" if isinstance(times, str) else f"{min(times) * 1e3:.0f} - {max(times) * 1e3:.0f}"
