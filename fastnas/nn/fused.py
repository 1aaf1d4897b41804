"""Runs the modules of a cell, or of an edge, as one fused operator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
            definition, are the operator's parameters. Edges that share parameters have the same modules. A pool may
            come without a batch norm.
        memory: "fast" or "lean".
        backend: "auto", "cpu" or "reference".
        repeats: how many times a training step updates the running statistics of each candidate's norms, one number
            for each of `candidates`; 1 without it.
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
        repeats: Sequence[int] | None = None,
    ) -> None:
        self._graph = (tuple(channels), inputs, tuple(edges), tuple(outputs))
        self._constant: list[nn.BatchNorm2d] = []  # norms of pools that have none
        leaves = [_leaves(module) for module in candidates]
        kinds = [(kind, channels[edge.target]) for edge in edges for kind in edge.kinds]
        for group, (kind, width) in zip(leaves, kinds, strict=True):
            if kind.pool and not group:
                self._constant.append(nn.BatchNorm2d(width, eps=0.0, affine=False).eval())  # (x - 0) / 1: exactly x
                group.append(self._constant[-1])
        owners = dict.fromkeys(leaf for group in leaves for leaf in group)  # each once, in order
        # Where the parameters are, rather than the parameters: `functional_call` and `load_state_dict(assign=True)`
        # replace them. A cell has some 170, so they are not looked up by attribute.
        names = ("weight", "bias")
        self._places = [(m._parameters, n) for m in owners for n in names if m._parameters[n] is not None]
        norms = [[leaf for leaf in group if isinstance(leaf, nn.BatchNorm2d)] for group in leaves]
        self._norms = [norm for group in norms for norm in group]
        times = [n for group, n in zip(norms, repeats or [1] * len(norms), strict=True) for _ in group]
        self._rounds = _rounds(self._norms, times)
        self._specs: dict[tuple[tuple[float, ...], tuple[bool, ...]], Spec] = {}
        self.memory, self.backend = memory, backend
        self.spec = self._spec([True] * len(self._norms))  # in training

    def __call__(self, inputs: Sequence[Tensor], alpha: Tensor) -> Tensor:
        """The cell's output for `inputs`, each (N, C, H, W), and `alpha`, flat.

        Updates running statistics as the modules would.
        """
        for norm in self._constant:
            mean = norm._buffers["running_mean"]
            if mean is not None and (mean.dtype, mean.device) != (alpha.dtype, alpha.device):
                norm.to(alpha)
        batch = [bn.training or bn._buffers["running_mean"] is None for bn in self._norms]
        spec = self._spec(batch)
        params = cast("list[Tensor]", [place[name] for place, name in self._places])
        stores = [bn._buffers for bn, uses_batch in zip(self._norms, batch, strict=True) if not uses_batch]
        running = cast("list[Tensor]", [store[name] for store in stores for name in ("running_mean", "running_var")])
        update = partial(self._update, spec, batch, inputs)
        out, _ = mixed_cell(spec, inputs, alpha, params, running, self.memory, self.backend, update)
        return out

    def _spec(self, batch: list[bool]) -> Spec:
        key = (tuple(bn.eps for bn in self._norms), tuple(batch))
        if key not in self._specs:
            norms = (Norm(bn.eps, bn.affine, uses) for bn, uses in zip(self._norms, batch, strict=True))
            self._specs[key] = Spec(*self._graph, tuple(norms))
        return self._specs[key]

    def _update(self, spec: Spec, batch: list[bool], inputs: Sequence[Tensor], statistics: Tensor) -> None:
        tracked = [
            uses and bn.track_running_stats and bn._buffers["running_mean"] is not None
            for bn, uses in zip(self._norms, batch, strict=True)
        ]
        if not any(tracked):
            return
        columns = torch.split(statistics, [bn.num_features for bn in compress(self._norms, batch)], 1)
        found = dict(zip(compress(range(len(batch)), batch), columns, strict=True))
        sizes = spec.norm_sizes([(t.shape[2], t.shape[3]) for t in inputs])
        for norms in self._rounds:
            chosen = [i for i in norms if tracked[i]]
            if not chosen:
                continue
            whole = chosen == list(found)
            rows = statistics if whole else torch.cat([found[i] for i in chosen], 1)
            blend([self._norms[i] for i in chosen], rows, [inputs[0].shape[0] * sizes[i] for i in chosen])


def blend(norms: Sequence[nn.BatchNorm2d], statistics: Tensor, counts: list[int]) -> None:
    """Updates the running statistics of some norms, none of them twice, as `update_running_stats` says."""
    stores = cast("list[dict[str, Tensor]]", [bn._buffers for bn in norms])
    update = blend_running_stats if unobserved(statistics) else update_running_stats
    update(
        [store["running_mean"] for store in stores],
        [store["running_var"] for store in stores],
        [store["num_batches_tracked"] for store in stores],
        statistics,
        [-1.0 if bn.momentum is None else bn.momentum for bn in norms],
        counts,
    )


def _leaves(module: nn.Module) -> list[nn.Conv2d | nn.BatchNorm2d]:
    return [leaf for leaf in module.modules() if isinstance(leaf, nn.Conv2d | nn.BatchNorm2d)]


def _rounds(norms: Sequence[nn.BatchNorm2d], times: Sequence[int]) -> list[list[int]]:
    """Numbers of norms, in rounds: one that is met several times has a round for each, in this order."""
    met: dict[nn.BatchNorm2d, int] = {}
    rounds: list[list[int]] = []
    for i, (norm, count) in enumerate(zip(norms, times, strict=True)):
        first = met.get(norm, 0)
        met[norm] = first + count
        rounds += [[] for _ in range(first + count - len(rounds))]
        for members in rounds[first : first + count]:
            members.append(i)
    return rounds
