"""Runs a function in a process of its own, which may run out of memory or of time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")

OUT_OF_MEMORY = "out of memory"


def isolated(function: Callable[..., T], *arguments: object, limit: float | None = None) -> T | str:
    """What `function(*arguments)` returns in a fresh process, or one line on why it returned nothing.

    Args:
        function: of an importable module; does not return a string.
        limit: seconds after which the process is ended.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        if receiver.poll(limit):
            return receiver.recv()
        os.killpg(process.pid, signal.SIGKILL)
        return f"did not finish in {limit:g} s"
    except EOFError:
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        return f"{OUT_OF_MEMORY}, killed" if killed else f"died with exit code {process.exitcode}"
    finally:
        process.join()
        receiver.close()


def reason(error: Exception) -> str:
    """A failure in one line."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return OUT_OF_MEMORY
    return f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _send(sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.setsid()  # one group with whatever it starts, such as compilers, so that all can be ended together
    try:
        sender.send(function(*arguments))
    except Exception as error:
        sender.send(reason(error))
