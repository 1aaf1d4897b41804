"""A cell as the compiled part's own object, which computes it on the CPU and plans it for GPUs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fastnas.ops.candidates import Depthwise, Pointwise, Reduce, Resize, Stage
from fastnas.ops.spec import decode

if TYPE_CHECKING:
    from fastnas import _C


@lru_cache(maxsize=1024)
def compiled(text: str) -> _C.Cell:
    """The cell that `Spec.text` holds."""
    from fastnas import _C

    spec = decode(text)
    edges = [
        (
            edge.source,
            edge.target,
            edge.stride,
            edge.searched,
            [(str(kind.pool or ""), kind.identity, [_stage(stage) for stage in kind.stages]) for kind in edge.kinds],
            -1 if edge.shares is None else edge.shares,
            -1 if edge.like is None else edge.like,
        )
        for edge in spec.edges
    ]
    norms = [(norm.eps, norm.affine, norm.batch) for norm in spec.norms]
    return _C.Cell(spec.channels, spec.inputs, edges, spec.outputs, norms)


def _stage(stage: Stage) -> tuple[str, int, int]:
    if isinstance(stage, Depthwise):
        return "depthwise", stage.kernel, stage.dilation
    return _NAMES[type(stage)], 1, 1


_NAMES = {Pointwise: "pointwise", Reduce: "reduce", Resize: "resize"}
