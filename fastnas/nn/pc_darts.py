"""The search network of PC-DARTS (Xu et al., ICLR 2020), on the fused operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn.fused import FusedCell
from fastnas.nn.mixed import MixedOp, preprocessing
from fastnas.nn.operations import FactorizedReduce, ReLUConvBN
from fastnas.nn.supernet import EDGES, STEPS, DartsSupernet
from fastnas.ops import DARTS_CANDIDATES, Edge

PARTS = 4  # K: one of so many parts of the channels is searched (1/4 in the paper for CIFAR-10)


class PCDartsCell(nn.Module):
    """A DARTS cell whose edges search on a quarter of their channels and pass the others on (equation 2).

    An edge's output is the concatenation of its candidates' sum and the other channels (through a 2×2 max pool where
    the edge has stride 2), shuffled so that the next edge searches on other ones; a node is the sum of its edges
    weighted by β (equation 3). All edges that leave the two inputs, or one node, are computed by one operator.

    Inputs and output are those of `fastnas.nn.Cell`. Sizes that are odd are rounded up, where the authors' code fails.

    Args:
        channels: a multiple of 4; the others are those of `fastnas.nn.Cell`.

    Raises:
        ValueError: another number of channels.
    """

    def __init__(
        self,
        channels_prev_prev: int,
        channels_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
        steps: int = STEPS,
        candidates: Sequence[str] = DARTS_CANDIDATES,
        memory: str = "fast",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if channels % PARTS:
            raise ValueError(f"partial channels need a multiple of {PARTS} channels, got {channels}")
        self.reduction, self.channels, self.steps = reduction, channels, steps
        prepare = FactorizedReduce if reduction_prev else ReLUConvBN
        self.preprocess0 = prepare(channels_prev_prev, channels, affine=False)
        self.preprocess1 = ReLUConvBN(channels_prev, channels, affine=False)
        searched, how = channels // PARTS, (memory, backend)
        self._ops = nn.ModuleList(
            MixedOp(searched, 2 if reduction and source < 2 else 1, candidates, memory=memory, backend=backend)
            for node in range(steps)
            for source in range(2 + node)
        )
        widths = (channels_prev_prev, channels_prev, channels, channels)
        self._prepare = FusedCell(
            widths, 2, preprocessing(reduction_prev), [2, 3], [self.preprocess0, self.preprocess1], *how
        )
        fans = [self._fan(first, tuple(candidates), *how) for first in range(steps)]
        self._fans = [fan for _, fan in fans]
        self._edges = [len(rows) for rows, _ in fans]
        self._rows: Tensor
        self.register_buffer("_rows", torch.tensor([row for rows, _ in fans for row in rows]), persistent=False)

    def _fan(self, first: int, candidates: tuple[str, ...], memory: str, backend: str) -> tuple[list[int], FusedCell]:
        """What leads from the inputs, or from the node before `first`, to the nodes from `first` on.

        Returns:
            The rows of α of its edges, and the operator that adds them up for each of these nodes.
        """
        sources = range(2) if first == 0 else range(first + 1, first + 2)
        rows, edges = [], []
        for target, node in enumerate(range(first, self.steps), len(sources)):
            for state, source in enumerate(sources):
                rows.append(_row(node, source))
                edges.append(Edge(state, target, 2 if self.reduction and first == 0 else 1, candidates))
        modules = [op for row in rows for op in self._ops.get_submodule(f"{row}._ops").children()]
        states = len(sources) + self.steps - first
        fan = ([self.channels // PARTS] * states, len(sources), edges, range(len(sources), states), modules)
        return rows, FusedCell(*fan, memory, backend)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, edge_weights: Tensor) -> Tensor:
        """The cell's output; `weights` (edges, candidates) and `edge_weights` (edges,) are α and β after softmax."""
        alphas = torch.split((edge_weights[:, None] * weights)[self._rows], self._edges)
        cut = [self.channels // PARTS, self.channels - self.channels // PARTS]
        sources = list(self._prepare([s0, s1], weights.new_empty(0)).chunk(2, 1))
        searched: list[Tensor] = []  # of every node, as far as its sources are known
        passed: list[Tensor] = []  # what each state passes on
        nodes: list[Tensor] = []
        for first, (alpha, fan) in enumerate(zip(alphas, self._fans, strict=True)):
            parts = [torch.split(source, cut, 1) for source in sources]
            sums = fan([part for part, _ in parts], alpha.flatten()).chunk(self.steps - first, 1)
            searched = [a + b for a, b in zip(searched[1:], sums, strict=True)] if searched else list(sums)
            pool = self.reduction and first == 0
            passed += [F.max_pool2d(rest, 2, ceil_mode=True) if pool else rest for _, rest in parts]
            row = _row(first, 0)
            rest = sum(weight * x for weight, x in zip(edge_weights[row : row + len(passed)], passed, strict=True))
            nodes.append(_shuffle(torch.cat([searched[0], rest], 1)))
            sources = nodes[-1:]
        return torch.cat(nodes, 1)


def _row(node: int, source: int) -> int:
    """The row of α of the edge from state `source` to `node`."""
    return node * (node + 3) // 2 + source


def _shuffle(x: Tensor) -> Tensor:
    """Deals the channels out, so that every part of them gets as many of each part (Zhang et al., "ShuffleNet")."""
    count, channels, height, width = x.shape
    return x.reshape(count, PARTS, channels // PARTS, height, width).transpose(1, 2).reshape(x.shape)


class PCDartsSupernet(DartsSupernet):
    """The search network of PC-DARTS, with the structure and parameter names of the authors' code.

    16 channels and 8 layers have 299,578 weights, 224 α and 28 β. Arguments, input and output are those of
    `DartsSupernet`; `channels` is a multiple of 4.
    """

    cell_type: ClassVar[Any] = PCDartsCell

    def __init__(
        self,
        channels: int = 16,
        layers: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        memory: str = "fast",
        backend: str = "auto",
    ) -> None:
        super().__init__(channels, layers, num_classes, in_channels, memory, backend)
        self.betas_normal = nn.Parameter(1e-3 * torch.randn(EDGES))
        self.betas_reduce = nn.Parameter(1e-3 * torch.randn(EDGES))

    def mixtures(self) -> list[tuple[Tensor, Tensor]]:
        """What normal and reduction cells take beside their inputs: softmax(α), (14, 8), and softmax(β), (14,)."""
        pairs = (self.alphas_normal, self.betas_normal), (self.alphas_reduce, self.betas_reduce)
        return [(F.softmax(alphas, -1), _edge_weights(betas)) for alphas, betas in pairs]

    def strengths(self) -> list[Tensor]:
        """α times β, both after softmax, (14, 8): as the authors decode."""
        with torch.no_grad():
            return [weights * edge_weights[:, None] for weights, edge_weights in self.mixtures()]

    def arch_parameters(self) -> list[nn.Parameter]:
        """α of normal and reduction cells, each (14, 8), and their β, each (14,), before softmax."""
        return [self.alphas_normal, self.alphas_reduce, self.betas_normal, self.betas_reduce]


def _edge_weights(betas: Tensor) -> Tensor:
    """β after a softmax over the edges of every node."""
    return torch.cat([F.softmax(node, -1) for node in torch.split(betas, [2 + node for node in range(STEPS)])])
