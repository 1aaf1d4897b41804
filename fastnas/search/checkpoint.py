"""The checkpoint file: a line of JSON that describes the payload, then the payload, written by torch.save.

A run keeps the last two.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from fastnas.errors import DamageError, DamageWarning, UserError, first_line
from fastnas.search.files import write_atomically

FORMAT = "fastnas-checkpoint"
VERSION = 1
CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint-previous.pt"


def write_checkpoint(path: Path, state: dict[str, Any], before: Path | None = None) -> None:
    """Writes `state`: tensors, numbers, strings, and lists and dictionaries of them.

    Args:
        before: where the checkpoint goes that was there.

    Raises:
        WriteError: it cannot be written; the file that was there before is unchanged.
    """
    payload = to_bytes(state)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_atomically(path, json.dumps(header).encode() + b"\n" + payload, before)


def read_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The last checkpoint in `folder`, or the one before it where that is damaged, with a `DamageWarning`.

    Returns:
        Its file and what it holds; None without one.

    Raises:
        UserError: it cannot be used, and there is none before it that can.
    """
    last, before = folder / CHECKPOINT, folder / PREVIOUS
    if not last.exists():  # the run was stopped between two renames, or has none yet
        return (before, read_checkpoint(before)) if before.exists() else None
    try:
        return last, read_checkpoint(last)
    except DamageError as damage:
        if not before.exists():
            raise
        try:
            state = read_checkpoint(before)
        except DamageError as error:
            raise DamageError(f"{damage}, and {error}; begin again in another --out") from error
        warnings.warn(f"{damage}; {before}, the one before it, is used", DamageWarning, stacklevel=2)
        return before, state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, its tensors on the CPU. Runs no code that the file may hold.

    Raises:
        DamageError: the file cannot be read, is truncated, damaged, or no checkpoint.
        UserError: another version of fastnas wrote it.
    """
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise DamageError(f"{path} cannot be read: {error.strerror}") from error
    header = _header(path, line)
    if header["version"] != VERSION:
        raise UserError(f"{path} has version {header['version']}, expected {VERSION}; another fastnas wrote it")
    if len(payload) != header["bytes"]:
        raise DamageError(
            f"{path} is truncated: expected {header['bytes']} bytes after its first line, got {len(payload)}"
        )
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise DamageError(f"{path} is damaged: its content does not match its checksum")
    try:
        state: Any = torch.load(io.BytesIO(payload), "cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers do
        raise DamageError(f"{path} cannot be loaded: {first_line(error)}") from error
    if not isinstance(state, dict):
        raise DamageError(f"{path} cannot be loaded: expected a dictionary, got {type(state).__name__}")
    return state


def to_bytes(state: dict[str, Any]) -> bytes:
    """What torch.save writes for `state`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(line)
        if header["format"] != FORMAT:
            raise KeyError(FORMAT)
        return {key: header[key] for key in ("version", "bytes", "sha256")}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamageError(f"{path} is not a fastnas checkpoint, or its first line is damaged") from error
