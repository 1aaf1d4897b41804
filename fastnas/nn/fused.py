"""Runs the modules of a cell, or of an edge, as one fused operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastnas.ops import Edge, Norm, Spec, mixed_cell, update_running_stats


class FusedCell:
    """The function of a cell whose parameters and buffers live in ordinary modules.

    Args:
        channels, inputs, edges, outputs: as in `fastnas.ops.Spec`.
        candidates: the module of every candidate, edge by edge; their convolutions and batch norms, in order of
            definition, are the operator's parameters.
        memory: "fast" or "lean".
        backend: "auto", "cpu" or "reference".
    """

    def __init__(
        self,
        channels: Sequence[int],
        inputs: int,
        edges: Sequence[Edge],
        outputs: Sequence[int],
        candidates: Sequence[nn.Module],
        memory: str,
        backend: str,
    ) -> None:
        self._graph = (tuple(channels), inputs, tuple(edges), tuple(outputs))
        leaves = [leaf for module in candidates for leaf in module.modules()]
        leaves = [leaf for leaf in leaves if isinstance(leaf, nn.Conv2d | nn.BatchNorm2d)]
        # Where the parameters are, rather than the parameters: `functional_call` and `load_state_dict(assign=True)`
        # replace them. A cell has some 170, so they are not looked up by attribute.
        names = ("weight", "bias")
        self._places = [(m._parameters, n) for m in leaves for n in names if m._parameters[n] is not None]
        self._norms = [leaf for leaf in leaves if isinstance(leaf, nn.BatchNorm2d)]
        self._specs: dict[tuple[tuple[float, bool], ...], Spec] = {}
        self.memory, self.backend = memory, backend
        self._spec()

    def __call__(self, inputs: Sequence[Tensor], alpha: Tensor) -> Tensor:
        """The cell's output for `inputs`, each (N, C, H, W), and `alpha`, flat.

        Updates running statistics as the modules would.
        """
        spec = self._spec()
        params = cast("list[Tensor]", [place[name] for place, name in self._places])
        out, statistics = mixed_cell(spec, inputs, alpha, params, self._running(), self.memory, self.backend)
        self._update(spec, inputs, statistics)
        return out

    def _spec(self) -> Spec:
        key = tuple((bn.eps, _uses_batch(bn)) for bn in self._norms)
        if key not in self._specs:
            norms = (Norm(eps, bn.affine, batch) for (eps, batch), bn in zip(key, self._norms, strict=True))
            self._specs[key] = Spec(*self._graph, tuple(norms))
        return self._specs[key]

    def _running(self) -> list[Tensor]:
        stores = [bn._buffers for bn in self._norms if not _uses_batch(bn)]
        return cast("list[Tensor]", [store[name] for store in stores for name in ("running_mean", "running_var")])

    def _update(self, spec: Spec, inputs: Sequence[Tensor], statistics: Tensor) -> None:
        batch = [bn for bn in self._norms if _uses_batch(bn)]
        tracked = [bn for bn in batch if bn.track_running_stats]
        if not tracked:
            return
        if len(tracked) < len(batch):
            columns = torch.split(statistics, [bn.num_features for bn in batch], 1)
            statistics = torch.cat([c for c, bn in zip(columns, batch, strict=True) if bn.track_running_stats], 1)
        sizes = spec.norm_sizes([(t.shape[2], t.shape[3]) for t in inputs])
        stores = [bn._buffers for bn in tracked]
        update_running_stats(
            [store["running_mean"] for store in stores],
            [store["running_var"] for store in stores],
            [store["num_batches_tracked"] for store in stores],
            statistics,
            [-1.0 if bn.momentum is None else bn.momentum for bn in tracked],
            [
                inputs[0].shape[0] * size
                for bn, size in zip(self._norms, sizes, strict=True)
                if _uses_batch(bn) and bn.track_running_stats
            ],
        )


def _uses_batch(bn: nn.BatchNorm2d) -> bool:
    return bn.training or not bn.track_running_stats
