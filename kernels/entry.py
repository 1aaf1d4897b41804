"""What makes a function a kernel that the host launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton

NUMBERS = ("table", "jobs", "count", "state", "images", "channels", "accumulate")
"""Arguments of every kernel besides `bases` and `buffers`, whose dtypes it is compiled for, and constants."""


def kernel(function: Callable[..., Any]) -> Any:
    """`triton.jit`, which by itself compiles again where a number is 1 or a multiple of 16.

    So what runs is what the gates have compiled, and a launch of another shape compiles nothing.
    """
    return triton.jit(function, do_not_specialize=NUMBERS, do_not_specialize_on_alignment=NUMBERS)
