"""The fused operators: the mixed edge, node and cell of differentiable architecture search."""

from fastnas.ops.candidates import CANDIDATES, DARTS_CANDIDATES, Depthwise

__all__ = ["CANDIDATES", "DARTS_CANDIDATES", "Depthwise"]
