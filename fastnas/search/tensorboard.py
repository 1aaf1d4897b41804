"""The same figures for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastnas.search.run import Row

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoard:
    """A listener that writes event files into `folder`; does nothing where TensorBoard is not installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, history: Sequence[Row], steps: int) -> None:
        """Opens an event file; what an interrupted run wrote beyond `history` is not shown any more."""
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=len(history) + 1)

    def step(self, images: int, figures: Mapping[str, float]) -> None:
        """Nothing: epochs are what is compared."""

    def epoch(self, row: Row) -> None:
        """Writes every number of the row."""
        if self._writer is None:
            return
        for name, value in row.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, row["epoch"])

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
