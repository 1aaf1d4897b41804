"""Faster imports, for commands that have an answer in seconds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting() -> Iterator[None]:
    """What is imported inside lasts as long as the process: no garbage collection looks at it, then or at the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
