"""This process's place among those that torchrun started for one run. Does not import PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """Where a process stands.

    Attributes:
        rank: from 0; the first process alone writes files and says how the run goes on.
        count: processes of the run.
        local_rank, local_count: the same among those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which part of a batch is this process's, from 0, and of how many."""
        return self.rank, self.count

    def command(self, words: str) -> str:
        """How to start `fastnas words` in as many processes."""
        if self.count == 1:
            return f"fastnas {words}"
        nodes = self.count // self.local_count
        several = f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT " if nodes > 1 else ""
        return f"torchrun {several}--nproc-per-node {self.local_count} -m fastnas {words}"


def launched() -> Launch:
    """This process's place; one without torchrun is alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Launch()
    return Launch(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
