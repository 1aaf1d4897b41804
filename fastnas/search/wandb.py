"""The same figures for Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastnas.errors import UserError, first_line
from fastnas.search.config import RunConfig
from fastnas.search.files import make_folder, write_atomically
from fastnas.search.loop import Callback
from fastnas.search.run import Row, numbers

if TYPE_CHECKING:
    import wandb


class WandB(Callback):
    """A callback that logs every epoch to one run of W&B, whose id it keeps in `folder` to go on with it.

    The library's own settings say where to: WANDB_PROJECT (else "fastnas"), WANDB_MODE=offline (`folder`/wandb alone).
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self._folder, self._config = folder, config
        self._run: wandb.Run | None = None

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Begins a run, or goes on with it, and logs what it has not of `history`: offline, where it cannot know, all.

        Raises:
            UserError: W&B refuses it, for example without an API key.
        """
        import wandb

        file = self._folder / "wandb" / "id"
        if not file.exists():
            make_folder(file.parent)
            write_atomically(file, uuid.uuid4().hex.encode())
        try:
            self._run = wandb.init(
                dir=self._folder,
                id=file.read_text(),
                resume="allow",
                project=os.environ.get("WANDB_PROJECT", "fastnas"),
                name=self._folder.resolve().name,
                config=self._config.model_dump(mode="json"),
                settings=wandb.Settings(console="off"),  # the terminal belongs to the progress bar
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases refuses the run: {first_line(error)} WANDB_MODE=offline needs no account"
            ) from error
        for row in history:
            if row["epoch"] >= self._run.starting_step:
                self.on_epoch(row)

    def on_epoch(self, row: Row) -> None:
        """Logs every number of the row; the library sends it when it can."""
        if self._run is not None:
            self._run.log(numbers(row), step=row["epoch"])

    def on_end(self, error: BaseException | None) -> None:
        """Ends the run, as failed where it was broken off."""
        if self._run is not None:
            self._run.finish(exit_code=0 if error is None else 1)
