"""SGD whose rate falls step by step, as segmentation networks are trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from fastnas.search import processes
from fastnas.search.segmentation_config import SegmentationConfig

_POWER = 0.9  # of DeepLab's poly schedule (Chen et al., 2018)


class StepDescent:
    """SGD with momentum and weight decay; the rate falls with every step along `config.schedule`.

    Args:
        parameters: what is trained.
        config: rates, momentum, decay, schedule and clipping.
        steps: of the whole run.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: SegmentationConfig, steps: int) -> None:
        self._parameters, self._clip = list(parameters), config.grad_clip
        self._sgd = optim.SGD(
            self._parameters,
            config.lr,
            config.momentum,
            weight_decay=config.weight_decay,
            fused=True,  # a supernet has more than a thousand small parameters
        )
        lowest = config.lr_min / config.lr
        fall = {"cosine": _cosine, "poly": _poly}[config.schedule]
        self._schedule = optim.lr_scheduler.LambdaLR(
            self._sgd, lambda step: lowest + (1 - lowest) * fall(min(step / steps, 1.0))
        )

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self._sgd.param_groups[0]["lr"])

    def begin(self) -> None:
        """Forgets the gradients of the last step."""
        self._sgd.zero_grad()

    def step(self) -> None:
        """Goes one step down the gradients that have been added up, their mean over all processes; lowers the rate."""
        processes.average_gradients(self._parameters)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._sgd.step()
        self._schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Momentum and schedule."""
        return {"sgd": self._sgd.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._sgd.load_state_dict(state["sgd"])
        self._schedule.load_state_dict(state["schedule"])


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _poly(progress: float) -> float:
    return float((1 - progress) ** _POWER)
