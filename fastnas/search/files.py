"""Files that are either the old or the new ones, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fastnas.errors import WriteError


def write_atomically(path: Path, content: bytes, before: Path | None = None) -> None:
    """Writes `content` under a temporary name, syncs it, and renames it to `path`.

    Args:
        before: where what was there goes, so that the last two are kept. Stopped in between, there is this one only.

    Raises:
        WriteError: it cannot be written, for example on a full disk; what was there before is unchanged.
    """
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
        if not path.parent.exists():
            raise WriteError(f"{path} cannot be written: its folder is gone") from error
        raise WriteError(f"{path} cannot be written ({error.strerror}); what was there before is unchanged") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
