"""What the command line tells its user in one sentence."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Something the user can put right.

    The message is one sentence that names the thing, what was expected and what is there.
    """

    exit_code: ClassVar[int] = 2


class InterruptError(UserError):
    """The user stopped the run; the message says how to go on."""

    exit_code: ClassVar[int] = 130


class WriteError(UserError):
    """A file cannot be written: a full disk, a folder that is gone or read-only."""


class LostError(UserError):
    """Another process of the same run is gone, or does not answer."""


class DamageError(UserError):
    """A file was written whole and is not any more."""


class DamageWarning(UserWarning):
    """Something is damaged, and what was there before it is used."""


def first_line(error: Exception) -> str:
    """What a library says of an error, without the lines that explain it to programmers."""
    return next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)
