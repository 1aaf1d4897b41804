"""What the terminal shows of a run: a bar for the epoch that runs, a line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastnas.search.alphas import ADVICE
from fastnas.search.run import Row

# key of a history row: title and format of its column; {:%} shows a share as a percentage
_COLUMNS = {
    "train_loss": ("train loss", "{:.4f}"),
    "train_accuracy": ("accuracy", "{:.1%}"),
    "train_miou": ("mIOU", "{:.1%}"),
    "val_loss": ("val loss", "{:.4f}"),
    "val_accuracy": ("accuracy", "{:.1%}"),
    "val_miou": ("mIOU", "{:.1%}"),
    "alpha_entropy": ("α entropy", "{:.4f}"),
}
_WIDTH = 10
_SPEED = "images/s"


class Display:
    """A callback that prints to `console`.

    The α entropy is that of the edges' softmax, from 1 (all candidates alike) to 0 (decided). Images per
    second are those that went forward and backward; validation is left out.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs, self._steps = console, epochs, 0
        self._done, self._images, self._busy = 0, 0, 0.0
        self._skips = False
        self._titles: list[str] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            refresh_per_second=4,  # drawing takes more than a millisecond, and steps may take a few
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Says where the run goes on, and shows the bar on a terminal."""
        self._done, self._steps = len(history), steps
        self._skips = bool(history) and bool(history[-1].get("skips_dominate"))
        if history:
            self._console.print(f"{len(history)} of {self._epochs} epochs are done already.", highlight=False)
        self._bar = self._progress.add_task("", total=steps, figures="")
        if self._done < self._epochs:
            self._progress.start()
            self._begin()

    def on_step(self, images: int, figures: Mapping[str, float]) -> None:
        """Moves the bar."""
        self._images += images
        self._busy = time.perf_counter() - self._since
        losses = [
            f"{part} {figures[f'{part}_loss']:.3f} {figures[f'{part}_accuracy']:.1%}"
            for part in ("train", "val")
            if f"{part}_loss" in figures
        ]
        shown = [f"{self._images / self._busy:.0f} {_SPEED}", *losses]
        self._progress.update(self._bar, advance=1, figures="  ".join(shown))

    def on_epoch(self, row: Row) -> None:
        """Prints the line of a finished epoch, and warns when skip connections take over."""
        columns = {key: column for key, column in _COLUMNS.items() if key in row}
        titles = [title for title, _ in columns.values()]
        if titles != self._titles:  # at the start, and when a search begins to train its architecture
            self._line("epoch", titles, _SPEED)
            self._titles = titles
        speed = f"{self._images / self._busy:.0f}" if self._busy else ""
        cells = [form.format(row[key]) for key, (_, form) in columns.items()]
        if columns:  # nothing is trained where an architecture is given, or drawn
            self._line(f"{row['epoch']}/{self._epochs}", cells, speed)
        self._warn(bool(row.get("skips_dominate")))
        if "stopped" in row:
            self._console.print(f"Stopped: {row['stopped']}.", highlight=False)
        self._done = row["epoch"]
        self._begin()

    def on_end(self, error: BaseException | None) -> None:
        """Removes the bar."""
        self._progress.stop()

    def _begin(self) -> None:
        self._images, self._busy, self._since = 0, 0.0, time.perf_counter()
        self._progress.reset(self._bar, description=f"epoch {self._done + 1}/{self._epochs}", figures="")

    def _line(self, epoch: str, cells: Sequence[str], speed: str) -> None:
        text = f"{epoch:>7}" + "".join(f"{cell:>{_WIDTH + 2}}" for cell in (*cells, speed))
        self._console.print(text, highlight=False, soft_wrap=True)

    def _warn(self, skips: bool) -> None:
        if skips and not self._skips:
            self._console.print(f"Warning: {ADVICE}", style="yellow", highlight=False)
        if self._skips and not skips:
            self._console.print("Skip connections no longer dominate the cell.", highlight=False)
        self._skips = skips
