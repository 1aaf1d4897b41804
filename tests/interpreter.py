"""Makes Triton's interpreter five times faster for tests, by leaving out what they do not need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType, SimpleNamespace
from typing import Any
from unittest import mock


@contextmanager
def hurried() -> Iterator[None]:
    """Prepares `triton.language` once for each module of kernels, and does not look for overflow of integers.

    The interpreter searches all of `triton.language` for what it must replace at every call of a device function.
    """
    from triton.runtime import interpreter

    patch, builder = interpreter._patch_lang, interpreter.interpreter_builder
    scopes: dict[str, Any] = {}

    def patch_once(fn: FunctionType) -> Any:
        if fn.__module__ not in scopes:
            scopes[fn.__module__] = patch(fn)
        return SimpleNamespace(restore=lambda: None)

    with (
        mock.patch.object(interpreter, "_patch_lang", patch_once),
        mock.patch.object(builder, "options", replace(builder.options, sanitize_overflow=False)),
    ):
        yield
    for scope in reversed(scopes.values()):
        scope.restore()
