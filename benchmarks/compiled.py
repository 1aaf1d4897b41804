"""Times of the stock network under torch.compile; run it in a process with a time limit."""

from __future__ import annotations

import torch
from contestants import STOCK, Setting, make
from timing import WARM_UP, interleaved

COMPILED = "stock compiled"


def compiled_seconds(setting: Setting, threads: int, rounds: int) -> list[float]:
    """Seconds of forward and backward in each round, without the time to compile."""
    torch.set_num_threads(threads)
    contestant = make(STOCK, setting)
    contestant.network = torch.compile(contestant.network)
    contestant.forward_backward()
    times = interleaved({COMPILED: contestant.forward_backward}, rounds, WARM_UP)[COMPILED]
    if isinstance(times, str):
        raise RuntimeError(times)
    return times
