"""The fused operators: the mixed edge, node and cell of differentiable architecture search."""

from fastnas.ops.backends import Backend, BackendError, backends
from fastnas.ops.candidates import CANDIDATES, DARTS_CANDIDATES, PREPROCESS, Depthwise
from fastnas.ops.cpu import release_workspaces
from fastnas.ops.functional import edge_spec, mixed_cell, mixed_edge
from fastnas.ops.operator import update_running_stats
from fastnas.ops.spec import Edge, Norm, Spec

__all__ = [
    "CANDIDATES",
    "DARTS_CANDIDATES",
    "PREPROCESS",
    "Backend",
    "BackendError",
    "Depthwise",
    "Edge",
    "Norm",
    "Spec",
    "backends",
    "edge_spec",
    "mixed_cell",
    "mixed_edge",
    "release_workspaces",
    "update_running_stats",
]
