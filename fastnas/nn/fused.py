"""Runs the modules of a cell, or of an edge, as one fused operator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import cast

import torch
from torch import Tensor, nn

from fastnas.ops import Edge, Norm, Spec, mixed_cell, update_running_stats
from fastnas.ops.operator import blend_running_stats, unobserved


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
        self._specs: dict[tuple[tuple[float, ...], tuple[bool, ...]], Spec] = {}
        self.memory, self.backend = memory, backend
        self.spec = self._spec([True] * len(self._norms))  # in training

    def __call__(self, inputs: Sequence[Tensor], alpha: Tensor) -> Tensor:
        """The cell's output for `inputs`, each (N, C, H, W), and `alpha`, flat.

        Updates running statistics as the modules would.
        """
        batch = [bn.training or not bn.track_running_stats for bn in self._norms]
        spec = self._spec(batch)
        params = cast("list[Tensor]", [place[name] for place, name in self._places])
        stores = [bn._buffers for bn, uses_batch in zip(self._norms, batch, strict=True) if not uses_batch]
        running = cast("list[Tensor]", [store[name] for store in stores for name in ("running_mean", "running_var")])
        out, statistics = mixed_cell(spec, inputs, alpha, params, running, self.memory, self.backend)
        self._update(spec, batch, inputs, statistics)
        return out

    def _spec(self, batch: list[bool]) -> Spec:
        key = (tuple(bn.eps for bn in self._norms), tuple(batch))
        if key not in self._specs:
            norms = (Norm(bn.eps, bn.affine, uses) for bn, uses in zip(self._norms, batch, strict=True))
            self._specs[key] = Spec(*self._graph, tuple(norms))
        return self._specs[key]

    def _update(self, spec: Spec, batch: list[bool], inputs: Sequence[Tensor], statistics: Tensor) -> None:
        tracked = [bn.track_running_stats and uses for bn, uses in zip(self._norms, batch, strict=True)]
        if not any(tracked):
            return
        norms = list(compress(self._norms, tracked))
        if tracked != batch:
            columns = torch.split(statistics, [bn.num_features for bn in compress(self._norms, batch)], 1)
            statistics = torch.cat(list(compress(columns, compress(tracked, batch))), 1)
        images = inputs[0].shape[0]
        sizes = spec.norm_sizes([(t.shape[2], t.shape[3]) for t in inputs])
        stores = cast("list[dict[str, Tensor]]", [bn._buffers for bn in norms])
        update = blend_running_stats if unobserved(statistics) else update_running_stats
        update(
            [store["running_mean"] for store in stores],
            [store["running_var"] for store in stores],
            [store["num_batches_tracked"] for store in stores],
            statistics,
            [-1.0 if bn.momentum is None else bn.momentum for bn in norms],
            [images * size for size in compress(sizes, tracked)],
        )
