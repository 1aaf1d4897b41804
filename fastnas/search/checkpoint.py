"""The checkpoint file: a line of JSON that describes the payload, then the payload, written by torch.save."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from fastnas.errors import UserError
from fastnas.search.files import write_atomically

FORMAT = "fastnas-checkpoint"
VERSION = 1


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state`: tensors, numbers, strings, and lists and dictionaries of them.

    Raises:
        UserError: it cannot be written; the file that was there before is unchanged.
    """
    payload = to_bytes(state)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    write_atomically(path, json.dumps(header).encode() + b"\n" + payload)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote. Runs no code that the file may hold.

    Raises:
        UserError: the file is missing, truncated, damaged, of a later version, or no checkpoint.
    """
    try:
        line, _, payload = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    header = _header(path, line)
    if header["version"] != VERSION:
        raise UserError(f"{path} has version {header['version']}, expected {VERSION}; another fastnas wrote it")
    if len(payload) != header["bytes"]:
        raise UserError(
            f"{path} is truncated: expected {header['bytes']} bytes after its first line, got {len(payload)}"
        )
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise UserError(f"{path} is damaged: its content does not match its checksum")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers do
        raise UserError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
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
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a fastnas checkpoint, or its first line is damaged") from error
