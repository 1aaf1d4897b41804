"""The cell of an Auto-DeepLab supernet whose atrous candidates are dense convolutions, as the paper has them.

A dense convolution needs the whole state that it reads, so a node is an operator of its own: its edges' other
candidates, and, as one more given state that only goes on into the sum, what the dense ones add up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastnas.nn.dense_atrous import DenseAtrous, atrous_candidate
from fastnas.nn.fused import FusedCell
from fastnas.nn.operations import ATROUS, make_candidate
from fastnas.nn.trellis import TrellisModules
from fastnas.ops import DARTS_CANDIDATES, Edge


class DenseEdge(nn.Module):
    """The parameters of an edge: its candidates in `_ops`, those in `ATROUS` dense."""

    def __init__(self, channels: int, candidates: Sequence[str]) -> None:
        super().__init__()
        self._ops = nn.ModuleList(
            atrous_candidate(channels, ATROUS[name])
            if name in ATROUS
            else make_candidate(name, channels, 1, affine=False, pool_norm=True)
            for name in candidates
        )

    def take(self, columns: Sequence[int]) -> list[nn.Module]:
        """Some of its candidates."""
        return [self._ops[column] for column in columns]


class DenseTrellisCell(TrellisModules):
    """A cell of a trellis with dense atrous candidates; arguments and call are those of `TrellisCell`.

    Of `candidates` at least one is in `fastnas.nn.operations.ATROUS`.
    """

    def __init__(
        self,
        prev_prev: int | None,
        ways: Sequence[int | None],
        channels: int,
        steps: int = 5,
        candidates: Sequence[str] = DARTS_CANDIDATES,
        memory: str = "fast",
        backend: str = "auto",
    ) -> None:
        super().__init__(prev_prev, ways, channels, steps, candidates, memory, backend)
        self._channels, self._steps = channels, steps
        self._dense = [i for i, name in enumerate(candidates) if name in ATROUS]
        self._fused = [i for i, name in enumerate(candidates) if name not in ATROUS]
        names, how = tuple(candidates[i] for i in self._fused), (memory, backend)
        prepared = len(self.given)  # as many states as are given
        edges, modules = zip(*self.preparation(), strict=True)
        widths = (*self.given, *[channels] * prepared)
        self._prepare = FusedCell(widths, prepared, edges, range(prepared, 2 * prepared), modules, *how)
        if self.prev_prev:
            dense = [self._edge_at(step, 0).take(self._dense) for step in range(steps)]
            self._common_terms = DenseAtrous(dense, memory, len(self.ways))
            self._common = self._edges_from_prev_prev(names, *how)
        self._nodes = [self._node(step, names, *how) for step in range(steps)]
        self._terms = [
            DenseAtrous([self._edge_at(t, s + 1).take(self._dense) for t in range(s, steps)], memory)
            for s in range(steps)
        ]
        self._combine = self._weighted_sum(*how)

    def _edge(self, channels: int, candidates: tuple[str, ...], memory: str, backend: str) -> DenseEdge:
        return DenseEdge(channels, candidates)

    def forward(self, prev_prev: Tensor | None, ways: Sequence[Tensor], weights: Tensor, betas: Tensor) -> Tensor:
        """Σ over ways of β times the concatenated nodes; see `TrellisCell.forward`."""
        fused, dense = _pick(weights, self._fused, 1), _pick(weights, self._dense, 1)
        given = list(ways) if prev_prev is None else [prev_prev, *ways]
        ends = list(torch.split(self._prepare(given, weights[:0, 0]), self._channels, 1))
        common = None
        if self.prev_prev:
            rows = [_row(step, 0) for step in range(self._steps)]
            shared = ends.pop(0)
            terms = self._common_terms(shared, None, _pick(dense, rows))
            common = self._common([shared, *torch.split(terms, self._channels, 1)], _pick(fused, rows).flatten())
        nodes = [node for end in ends for node in self._way(end, common, fused, dense)]
        return self._combine(nodes, betas)

    def _way(self, end: Tensor, common: Tensor | None, fused: Tensor, dense: Tensor) -> list[Tensor]:
        """The nodes on one way; `common` is what prev-prev adds to each."""
        states, sums = [end], common
        for step in range(self._steps):
            rows = [_row(target, step + 1) for target in range(step, self._steps)]
            sums = self._terms[step](states[-1], sums, _pick(dense, rows))
            own, sums = torch.split(sums, [self._channels, sums.shape[1] - self._channels], 1)
            entering = [_row(step, position) for position in range(1, step + 2)]
            states.append(self._nodes[step]([*states, own], _pick(fused, entering).flatten()))
        return states[1:]

    def _edge_at(self, step: int, position: int) -> DenseEdge:
        """The edge to node `step` from prev-prev (0), the way's end (1) or a node before it."""
        return cast("DenseEdge", self._ops[_row(step, position)])

    def _edges_from_prev_prev(self, names: tuple[str, ...], memory: str, backend: str) -> FusedCell:
        """What prev-prev adds to every node: given are its state and what the dense candidates make of it."""
        steps = range(self._steps)
        edges, modules = [], []
        for step in steps:
            target = 1 + self._steps + step
            edges += [Edge(0, target, 1, names), Edge(1 + step, target, 1, ("identity",))]
            modules += [*self._edge_at(step, 0).take(self._fused), nn.Identity()]
        inputs, repeats = 1 + self._steps, len(self.ways)
        outputs = range(inputs, inputs + self._steps)
        widths = [self._channels] * (inputs + self._steps)
        return FusedCell(widths, inputs, edges, outputs, modules, memory, backend, [repeats] * len(modules))

    def _node(self, step: int, names: tuple[str, ...], memory: str, backend: str) -> FusedCell:
        """A node: given are the way's end, the nodes before it, and what is added as it is."""
        inputs = step + 2
        edges = [*(Edge(s, inputs, 1, names) for s in range(step + 1)), Edge(step + 1, inputs, 1, ("identity",))]
        ops = [op for s in range(step + 1) for op in self._edge_at(step, s + 1).take(self._fused)]
        widths = [self._channels] * (inputs + 1)
        return FusedCell(widths, inputs, edges, [inputs], [*ops, nn.Identity()], memory, backend)

    def _weighted_sum(self, memory: str, backend: str) -> FusedCell:
        """Σ β over the ways of each node; given are the nodes, way by way."""
        inputs = len(self.ways) * self._steps
        edges = [
            Edge(way * self._steps + step, inputs + step, 1, ("skip_connect",), way if step else None)
            for step in range(self._steps)
            for way in range(len(self.ways))
        ]
        widths = [self._channels] * (inputs + self._steps)
        outputs = range(inputs, inputs + self._steps)
        return FusedCell(widths, inputs, edges, outputs, [nn.Identity()] * len(edges), memory, backend)


def _row(step: int, position: int) -> int:
    """Of α: that of the edge to node `step` from prev-prev (0), the way's end (1) or a node before it."""
    return step * (step + 3) // 2 + position


def _pick(t: Tensor, places: Sequence[int], dim: int = 0) -> Tensor:
    """`t` at some places, without a tensor of them, which would be brought to the GPU each time."""
    return torch.stack([t.select(dim, place) for place in places], dim)
