"""Where a run's figures go beside its own files: `--log`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastnas.errors import UserError
from fastnas.search.config import RunConfig
from fastnas.search.mlflow import MLflow
from fastnas.search.tensorboard import TensorBoard
from fastnas.search.wandb import WandB

if TYPE_CHECKING:
    from fastnas.search.loop import Callback
    from fastnas.search.run import Run


def check_loggers(config: RunConfig) -> None:
    """Refuses a logger whose library is not installed.

    Raises:
        UserError: the message names it.
    """
    for name in config.loggers:
        if find_spec(name) is None:
            raise UserError(f"--log {name} needs the package {name}: pip install 'fastnas[{name}]'")


def make_loggers(run: Run) -> list[Callback]:
    """The loggers of a run that has begun; where `--log` was left out TensorBoard, if it is installed."""
    names = ["tensorboard"] if run.config.log is None else run.config.loggers
    made: dict[str, Callback] = {
        "tensorboard": TensorBoard(run.folder / "tensorboard"),
        "wandb": WandB(run.folder, run.config),
        "mlflow": MLflow(run.folder, run.config),
    }
    return [made[name] for name in names]
