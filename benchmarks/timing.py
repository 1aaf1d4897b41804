"""Times of steps that take turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from isolated import reason

WARM_UP = 3


def interleaved(
    steps: dict[str, Callable[[], None]], rounds: int, warm_up: int = WARM_UP
) -> dict[str, list[float] | str]:
    """Seconds of each step in each round, or why it failed.

    A round runs every step once, in an order of its own, so that a slow spell of the machine meets all of them and
    none always follows the same other. The first `warm_up` rounds do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    failures: dict[str, str] = {}
    for turn in range(warm_up + rounds):
        for name in random.Random(turn).sample(list(steps), len(steps)):
            if name in failures:
                continue
            start = time.perf_counter()
            try:
                steps[name]()
            except Exception as error:
                failures[name] = reason(error)
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds | failures
