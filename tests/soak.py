"""2,000 steps of a small supernet, a quarter of which fail halfway: memory must stay where it is after the first 500.

    python tests/soak.py

Not part of the normal tests: it takes a minute or two. Exits with 1 and a sentence if memory grew.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from fastnas import _C
from fastnas.nn import DartsSupernet

STEPS, SETTLED = 2000, 500
TOLERANCE = 4.0  # MB; what one cell saves, leaked by every step that fails, would be ten times as much
MB = 2**20


class InterruptionError(Exception):
    """What a user's code raises in the middle of a step."""


def resident() -> float:
    """Resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def interrupt(*_: object) -> None:
    """A hook that raises."""
    raise InterruptionError


def step(network: DartsSupernet, x: Tensor, fault: str) -> None:
    """Forward and backward, or as far as the fault lets them go."""
    if fault == "shape":
        x = x[:, :2]
    last = network.cells[-1]
    hook = last.register_forward_hook(interrupt) if fault == "forward" else None
    try:
        logits = network(x)
    finally:
        if hook:
            hook.remove()
    if fault == "loss":
        raise InterruptionError
    if fault == "backward":
        logits.register_hook(interrupt)
    logits.square().mean().backward()


def attempt(network: DartsSupernet, x: Tensor, fault: str) -> None:
    """A step; a fault must end it in an error and no fault in none."""
    try:
        step(network, x, fault)
    except (InterruptionError, RuntimeError, ValueError):
        if not fault:
            raise
    else:
        assert not fault, f"the fault {fault!r} went unnoticed"
    network.zero_grad()


def check(name: str, settled: list[float]) -> None:
    """The largest of the last quarter is at most the tolerance above that of the first."""
    quarter = len(settled) // 4
    start, end = max(settled[:quarter]), max(settled[-quarter:])
    print(f"{name}: {start:.1f} MB after {SETTLED} steps, {end:.1f} MB at the end")
    if end > start + TOLERANCE:
        raise SystemExit(f"{name} grew by {end - start:.1f} MB, expected at most {TOLERANCE}")


def main() -> None:
    """Run it."""
    torch.manual_seed(0)
    choose = random.Random(0)
    networks = [DartsSupernet(4, 3, memory=memory, backend="cpu") for memory in ("fast", "lean")]
    memory, pool = [], []
    begin = time.perf_counter()
    for i in range(STEPS):
        network = networks[i % 2].train(choose.random() < 0.8)
        fault = choose.choice(("shape", "forward", "loss", "backward")) if choose.random() < 0.25 else ""
        attempt(network, torch.randn(choose.choice((2, 3, 4, 8)), 3, 12, 12), fault)
        memory.append(resident())
        pool.append(_C.workspace_bytes() / MB)
    print(f"{STEPS} steps in {time.perf_counter() - begin:.0f} s; first: {memory[0]:.1f} MB, pool {pool[0]:.1f} MB")
    check("resident memory", memory[SETTLED:])
    check("the pool", pool[SETTLED:])


if __name__ == "__main__":
    main()
