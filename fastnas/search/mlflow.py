"""The same figures for MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastnas.errors import UserError, WriteError, first_line
from fastnas.search.config import RunConfig
from fastnas.search.files import make_folder, write_atomically
from fastnas.search.loop import Callback
from fastnas.search.run import Row, numbers

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MLflow(Callback):
    """A callback that logs every epoch to one run of MLflow, whose id it keeps in `folder` to go on with it.

    The library's own settings say where to: MLFLOW_TRACKING_URI (else mlflow.db in the working folder), and
    MLFLOW_EXPERIMENT_NAME (else "fastnas").
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self._folder, self._config = folder, config
        self._client: MlflowClient | None = None
        self._id, self._known = "", 0

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Begins a run, or goes on with it, and logs what it has not of `history`.

        Raises:
            UserError: the store cannot be reached, or does not know the run.
        """
        from mlflow import MlflowClient

        file = self._folder / "mlflow" / "id"
        with _refused(UserError, "MLflow refuses the run"):
            self._client = MlflowClient()
            if file.exists():
                self._id = file.read_text()
                self._client.update_run(self._id, "RUNNING")
                logged = self._client.get_metric_history(self._id, "epoch")
                self._known = max((int(metric.step) for metric in logged), default=0)
            else:
                self._id = self._create(self._client)
                make_folder(file.parent)
                write_atomically(file, self._id.encode())
        for row in history:
            self.on_epoch(row)

    def on_epoch(self, row: Row) -> None:
        """Logs every number of the row, once.

        Raises:
            WriteError: the store does not take it.
        """
        epoch = int(row["epoch"])
        if self._client is None or epoch <= self._known:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        figures = {"epoch": float(epoch), **numbers(row)}
        with _refused(WriteError, "MLflow does not take the figures"):
            self._client.log_batch(self._id, [Metric(name, value, now, epoch) for name, value in figures.items()])

    def on_end(self, error: BaseException | None) -> None:
        """Ends the run, as killed or failed where it was broken off."""
        if self._client is not None and self._id:
            interrupted = isinstance(error, KeyboardInterrupt)
            status = "FINISHED" if error is None else "KILLED" if interrupted else "FAILED"
            with _refused(WriteError, "MLflow does not take the end of the run"):
                self._client.set_terminated(self._id, status)

    def _create(self, client: MlflowClient) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fastnas")
        experiment = client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else client.create_experiment(name)
        run = client.create_run(number, run_name=self._folder.resolve().name)
        options = self._config.model_dump(mode="json")
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in options.items()])
        return str(run.info.run_id)


@contextmanager
def _refused(kind: type[UserError], what: str) -> Iterator[None]:
    """Makes a sentence of what the store says."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise kind(f"{what}: {first_line(error)}") from error
