"""What is trained on which data, and when; checkpoints, logs and figures of it: docs/search.md.

The modules are imported one by one, so that the command line can read `config` without waiting for PyTorch. The package
can be called: it is `fastnas.search`, see `fastnas.search.api.search`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnas.search.api import SearchResult


class _Search(ModuleType):
    """An import of any module in here sets `fastnas.search` to this package, so a function could not keep that name."""

    def __call__(self, *args: Any, **options: Any) -> SearchResult:
        from fastnas.search.api import search

        return search(*args, **options)


sys.modules[__name__].__class__ = _Search
