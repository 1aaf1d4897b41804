"""The loop that every run goes through: epochs, what is told about them, checkpoints, and stopping."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.amp import GradScaler

from fastnas.errors import InterruptError, LostError, UserError, WriteError
from fastnas.search import processes
from fastnas.search.config import ClassificationConfig
from fastnas.search.launch import launched
from fastnas.search.run import Row, Run

Report = Callable[[int, Mapping[str, float]], None]
"""Called after each step with the images that went through it and the epoch's figures so far."""


Verdict = Callable[[Sequence[Row]], Row]
"""Says of a history what its last row has to record beside; a row with the key `stopped` is the run's last."""


class Task(Protocol):
    """What is trained, and how one epoch of it goes."""

    @property
    def steps(self) -> int:
        """Steps in an epoch."""

    def train_epoch(self, epoch: int, report: Report) -> Row:
        """Trains epoch `epoch`, counted from 0, and returns what the history keeps of it."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on, beside its number and PyTorch's global generator."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""


class Callback(Protocol):
    """Is told how a run goes on; of several processes, in the first alone.

    A class that derives from it needs only the methods that it has a use for.
    """

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """The run starts, or goes on, after the epochs in `history`; each epoch has `steps` steps."""
        return

    def on_step(self, images: int, figures: Mapping[str, float]) -> None:
        """A step is done, see `Report`; `images` are those of all processes, `figures` of the first."""
        return

    def on_epoch(self, row: Row) -> str | None:
        """An epoch is done, but not saved yet: a run killed in between says it again when it is resumed.

        Args:
            row: what the history keeps of it, not to be changed.

        Returns:
            None, or why this epoch is the run's last, which the history keeps as `stopped`.
        """
        return None

    def on_end(self, error: BaseException | None) -> None:
        """The run is over, or was broken off by `error`."""
        return


def train(
    task: Task, run: Run, epochs: int, callbacks: Sequence[Callback], verdict: Verdict = lambda history: {}
) -> list[Row]:
    """Trains until `epochs` epochs are done or `verdict` or a callback stops it, after those that `run` holds already.

    Returns:
        The history, one row an epoch.

    Raises:
        UserError: training diverged.
        WriteError: a file could not be written.
        LostError: another process of the run is gone.
        InterruptError: Ctrl-C; what was saved last is complete.
    """
    saved, launch = 0, launched()
    callbacks = callbacks if launch.first else []

    def report(images: int, figures: Mapping[str, float]) -> None:
        for callback in callbacks:
            callback.on_step(images * launch.count, figures)

    try:
        with ExitStack() as stack:
            for callback in callbacks:
                stack.push(_ends(callback))
            history = run.restore(task)
            saved = len(history)
            for callback in callbacks:
                callback.on_start(history, task.steps)
            while saved < epochs and not (history and "stopped" in history[-1]):
                row = {"epoch": saved + 1, **task.train_epoch(saved, report)}
                row |= verdict([*history, row])
                for callback in callbacks:
                    if (reason := callback.on_epoch(row)) is not None:
                        row.setdefault("stopped", reason)
                history.append(processes.from_all(row)[0])
                run.save(task, history)
                saved = len(history)
    except (KeyboardInterrupt, WriteError, LostError) as error:
        state = f"with {saved} of {epochs} epochs saved"
        follow = f"go on with: {launch.command(f'{run.command} --out {shlex.quote(str(run.folder))} --resume')}"
        if isinstance(error, WriteError):
            raise WriteError(f"{error}; the run stops {state}; when that is put right {follow}") from error
        if isinstance(error, LostError):
            raise LostError(f"{error}; the run stops {state}; {follow}") from error
        raise InterruptError(f"interrupted, {state}; {follow}") from error
    return history


def _ends(callback: Callback) -> Callable[..., None]:
    return lambda kind, error, trace: callback.on_end(error)


class Descent:
    """SGD with momentum, weight decay and clipped gradients; the rate falls each epoch, along a cosine or by a factor.

    Args:
        parameters: what is trained.
        config: rates, momentum, decay and clipping.
        epochs: of the whole run.
        scaler: of losses whose gradients float16 could not hold; None for no scaling.
        decay: the factor; None for the cosine.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: ClassificationConfig,
        epochs: int,
        scaler: GradScaler | None = None,
        decay: float | None = None,
    ) -> None:
        self._parameters, self._clip = list(parameters), config.grad_clip
        self._scaler = scaler or GradScaler("cpu", enabled=False)
        self._sgd = optim.SGD(
            self._parameters,
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            fused=True,  # a supernet has more than a thousand small parameters
        )
        for parameter in self._parameters:  # the fused step takes no mixture of first steps and later ones
            self._sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._schedule: optim.lr_scheduler.LRScheduler = (
            optim.lr_scheduler.CosineAnnealingLR(self._sgd, epochs, config.lr_min)
            if decay is None
            else optim.lr_scheduler.ExponentialLR(self._sgd, decay)
        )

    @property
    def lr(self) -> float:
        """The learning rate of this epoch."""
        return float(self._sgd.param_groups[0]["lr"])

    def step(self, loss: Tensor) -> None:
        """Goes one step down the gradient of `loss`; none if it overflows by the scaler, which then scales less."""
        self._sgd.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        processes.average_gradients(self._parameters)  # first, so that what overflows in one process does in all
        self._scaler.unscale_(self._sgd)
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._scaler.step(self._sgd)
        self._scaler.update()

    @torch.no_grad()
    def direction(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """What a step down these gradients would subtract, over its rate: with momentum and decay, not clipped."""
        group = self._sgd.param_groups[0]
        return [
            gradient + group["weight_decay"] * p + group["momentum"] * self._sgd.state[p]["momentum_buffer"]
            for p, gradient in zip(self._parameters, gradients, strict=True)
        ]

    def end_epoch(self) -> None:
        """Lowers the learning rate."""
        self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Momentum, schedule and scale."""
        return {
            "sgd": self._sgd.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._sgd.load_state_dict(state["sgd"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])


class Score:
    """Mean loss and accuracy over the images of an epoch, of which each process counts its own."""

    def __init__(self) -> None:
        self._loss, self._correct, self._count = 0.0, 0, 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Counts a batch: logits (N, classes), labels (N,).

        Raises:
            UserError: the loss is not finite.
        """
        with torch.no_grad():
            loss = F.cross_entropy(logits, labels).item()
        if not math.isfinite(loss):
            raise UserError(f"training diverged: the loss became {loss}; try a lower --lr or --grad-clip")
        self._loss += loss * len(labels)
        self._correct += int((logits.argmax(1) == labels).sum())
        self._count += len(labels)

    def running(self, part: str) -> dict[str, float]:
        """`{part}_loss` and `{part}_accuracy`, the latter from 0 to 1, of this process: what is shown after a step."""
        return _figures(part, self._loss, self._correct, self._count)

    def figures(self, part: str) -> dict[str, float]:
        """The same of all processes."""
        counted = torch.tensor([self._loss, self._correct, self._count], dtype=torch.float64)
        return _figures(part, *processes.total(counted).tolist())


def _figures(part: str, loss: float, correct: float, count: float) -> dict[str, float]:
    return {f"{part}_loss": loss / count, f"{part}_accuracy": correct / count}
