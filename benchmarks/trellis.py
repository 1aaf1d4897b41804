"""A cell of Auto-DeepLab's search network (Liu et al., CVPR 2019): what fastnas runs, and stock PyTorch's module."""

from __future__ import annotations

from collections.abc import Sequence

import stock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.ops import DARTS_CANDIDATES, Edge, Norm, Spec

NODES = 5
SCALES = (4, 8, 16, 32)
WAYS = {"down": -1, "same": 0, "up": 1}  # from which of the scales they lead here


def trellis_spec(
    channels: int,
    widths: Sequence[int],
    steps: int = 2,
    prev_prev: bool = True,
    ways: Sequence[str] = ("down", "same", "up"),
    candidates: Sequence[str] = DARTS_CANDIDATES,
    norm: Norm | None = None,
) -> Spec:
    """A cell of Auto-DeepLab, run on every way that leads to it with the same weights, the results weighted by β.

    Inputs: prev-prev, then the ways' ends, of the given widths. Edges that leave prev-prev are the same on every way.
    α holds the edges' entries, then β's.
    """
    count = len(ways)
    inputs = prev_prev + count
    graph = [Edge(0, inputs, 1, ("relu_conv_bn",))] if prev_prev else []
    same = prev_prev + ways.index("same") if "same" in ways else None
    for i, way in enumerate(ways):
        source, target = prev_prev + i, inputs + prev_prev + i
        like = same if way == "up" else None
        graph.append(Edge(source, target, 2 if way == "down" else 1, ("resize_conv_bn",), like=like))
    first = [inputs] if prev_prev else []  # state that all ways share
    states = [[inputs + prev_prev + i] for i in range(count)]  # of each way: the preprocessed end, then nodes
    following = inputs + prev_prev + count
    owners: dict[tuple[int, int], int] = {}  # by step and position of the source, the edge that has the parameters
    for step in range(steps):
        shared = following if prev_prev else None
        if prev_prev:
            graph.append(Edge(first[0], following, 1, tuple(candidates)))
            following += 1
        for way in range(count):
            if shared is not None:
                graph.append(Edge(shared, following, 1, ("identity",)))
            for position, source in enumerate(states[way]):
                owner = owners.setdefault((step, position), len(graph))
                shares = None if owner == len(graph) else owner
                graph.append(Edge(source, following, 1, tuple(candidates), shares))
            states[way].append(following)
            following += 1
    outputs = tuple(range(following, following + steps))
    betas: dict[int, int] = {}
    for step in range(steps):
        for way in range(count):
            owner = betas.setdefault(way, len(graph))
            shares = None if owner == len(graph) else owner
            graph.append(Edge(states[way][step + 1], outputs[step], 1, ("skip_connect",), shares))
    norms = sum(kind.norms for e in graph for kind in e.kinds)
    states_channels = (*widths, *[channels] * (outputs[-1] + 1 - inputs))
    return Spec(states_channels, inputs, tuple(graph), outputs, (norm or Norm(),) * norms)


class StockCell(nn.Module):
    """The cell as public code runs it: all edges again for every way that leads to it, then the sum weighted by β.

    `prev_prev` is (N, C, H, W), `ends` holds the input of every way, of any size, `weights` (edges, 8) are alphas and
    `betas` (ways,); the output is (N, nodes * channels, H, W).
    """

    def __init__(self, prev_prev: int, widths: Sequence[int], channels: int, nodes: int = NODES) -> None:
        super().__init__()
        self.nodes = nodes
        self.preprocess0 = stock.ReLUConvBN(prev_prev, channels)
        self.preprocess1 = nn.ModuleList(stock.ReLUConvBN(width, channels) for width in widths)
        self._ops = nn.ModuleList(stock.MixedOp(channels, 1) for node in range(nodes) for _ in range(2 + node))

    def forward(self, prev_prev: Tensor, ends: Sequence[Tensor], weights: Tensor, betas: Tensor) -> Tensor:
        first, size = self.preprocess0(prev_prev), prev_prev.shape[2:]
        ways = zip(ends, self.preprocess1, betas, strict=True)
        return sum(beta * self._way([first, prepare(_resized(end, size))], weights) for end, prepare, beta in ways)

    def _way(self, states: list[Tensor], weights: Tensor) -> Tensor:
        edges = zip(self._ops, weights, strict=True)
        for _ in range(self.nodes):
            states.append(sum(op(state, alphas) for state, (op, alphas) in zip(states, edges, strict=False)))
        return torch.cat(states[-self.nodes :], dim=1)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=True)
