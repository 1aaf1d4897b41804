"""Files that are either the old or the new ones, whatever happens while they are written; and records that grow.

Of several processes of one run the first alone writes; in the others nothing happens.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fastnas.errors import UserError, WriteError
from fastnas.search.launch import launched


def write_atomically(path: Path, content: bytes, before: Path | None = None) -> None:
    """Writes `content` under a temporary name, syncs it, and renames it to `path`.

    Args:
        before: where what was there goes, so that the last two are kept. Stopped in between, there is this one only.

    Raises:
        WriteError: it cannot be written, for example on a full disk; what was there before is unchanged.
    """
    if not launched().first:
        return
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            os.replace(path, before)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise _refusal(path, error, "; what was there before is unchanged") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def append(path: Path, content: bytes) -> None:
    """Adds to a file whose folder, which is its own, is made if it is missing; not synced, so a crash may tear it.

    Raises:
        WriteError: it cannot be written, and names the folder.
    """
    if not launched().first:
        return
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        raise _refusal(path.parent, error) from error


def make_run_folder(folder: Path) -> None:
    """Makes the folder that --out names, and those around it, where they are missing.

    Raises:
        UserError: it cannot be made.
    """
    if not launched().first:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be made: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Makes a folder, if it is missing, in one that is there.

    Raises:
        WriteError: it cannot be made.
    """
    if not launched().first:
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _refusal(folder, error) from error


def _refusal(path: Path, error: OSError, state: str = "") -> WriteError:
    gone = not path.parent.exists()
    return WriteError(f"{path} cannot be written" + (": its folder is gone" if gone else f" ({error.strerror}){state}"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
