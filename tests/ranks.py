"""Several processes of one run, started by torchrun's own agent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import killing  # noqa: F401  # prepares the server that forks them
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

__all__ = ["COUNT", "ChildFailedError", "together"]

COUNT = 2


def together(function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function(*args)` returns in each of `COUNT` processes.

    Raises:
        ChildFailedError: one of them failed, or was killed; the agent has ended the others.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    how = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "max_restarts": 0}
    config = LaunchConfig(1, 1, COUNT, run_id="tests", start_method="forkserver", **how)
    found = elastic_launch(config, _one_thread)(function, *args)
    return [found[rank] for rank in range(COUNT)]


def _one_thread(function: Callable[..., Any], *args: Any) -> Any:
    torch.set_num_threads(1)
    return function(*args)
