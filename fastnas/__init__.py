"""fastnas: differentiable architecture search on fused kernels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastnas.errors import UserError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnas.search.api import RetrainResult, SearchResult, repeat, retrain, search
    from fastnas.search.loop import Callback
    from fastnas.search.repeat import RepeatResult
    from fastnas.swap import accelerate, restore

__all__ = [
    "Callback",
    "RepeatResult",
    "RetrainResult",
    "SearchResult",
    "UserError",
    "__version__",
    "accelerate",
    "repeat",
    "restore",
    "retrain",
    "search",
]

_MODULES = {
    "Callback": "fastnas.search.loop",
    "RepeatResult": "fastnas.search.repeat",
    "RetrainResult": "fastnas.search.api",
    "SearchResult": "fastnas.search.api",
    "accelerate": "fastnas.swap",
    "restore": "fastnas.swap",
    "repeat": "fastnas.search.api",
    "retrain": "fastnas.search.api",
}


def __getattr__(name: str) -> Any:
    """Imports PyTorch with the first use of what needs it, not before."""
    if name == "search":
        return import_module("fastnas.search")  # which can be called
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'fastnas' has no attribute {name!r}")
