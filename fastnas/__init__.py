"""fastnas: differentiable architecture search on fused kernels."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnas.swap import accelerate, restore

__all__ = ["__version__", "accelerate", "restore"]


def __getattr__(name: str) -> Any:
    """Imports PyTorch with the first use of what needs it, not before."""
    if name in ("accelerate", "restore"):
        from fastnas import swap

        return getattr(swap, name)
    raise AttributeError(f"module 'fastnas' has no attribute {name!r}")
