"""One run at a time writes into a folder; of several processes of the run, the first holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fastnas.errors import UserError
from fastnas.search.launch import launched

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process, and thread, out of `folder` inside the block; the lock dies with the process.

    Raises:
        UserError: another one is at work in it, or it cannot be written.
    """
    if not launched().first:
        yield
        return
    lock = FileLock(folder / LOCK, blocking=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is in use by another fastnas process; wait until it ends") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
