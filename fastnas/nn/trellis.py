"""The cell of an Auto-DeepLab supernet: run on every way that leads to it, in one fused operator.

Liu et al., "Auto-DeepLab", CVPR 2019, §4.1: ᵇHˡ is the sum over the ways from the finer, the same and the coarser scale
of β times what the cell makes of that way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastnas.nn.fused import FusedCell
from fastnas.nn.mixed import MixedOp
from fastnas.nn.operations import ReLUConvBN
from fastnas.ops import DARTS_CANDIDATES, Edge, Spec

WAYS = ("down", "same", "up")


class TrellisModules(nn.Module):
    """The parameters of a cell of `steps` nodes that is run with the same weights on every way that leads to it.

    A way's end is resampled to the cell's size (bilinear, the corners' pixels on each other) and brought to `channels`
    by ReLU, a 1×1 convolution and batch norm. Each way has batch statistics of its own; running statistics are
    updated once for every way, in the order of the arguments. The edges that leave prev-prev are the same on every way:
    they are computed once, and update their running statistics as often as stock code does.

    Args:
        prev_prev: channels of the cell's output two layers before, at its own scale; None where there was none.
        ways: channels of the outputs of the layer before at the finer ("down"), the same and the coarser scale ("up"),
            None for a way that does not exist. "up" needs "same", whose size it takes.
        channels: C, of every node.
        steps: nodes (5 in the paper).
        candidates: of every edge.
        memory, backend: as for `fastnas.nn.MixedOp`.

    Raises:
        ValueError: no way, or "up" without "same".
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
        super().__init__()
        widths = dict(zip(WAYS, ways, strict=True))
        self.ways = tuple(way for way in WAYS if widths[way] is not None)
        if not self.ways or ("up" in self.ways and "same" not in self.ways):
            raise ValueError(f"a cell needs a way from a finer or its own scale, and 'same' with 'up', got {self.ways}")
        self.pre_preprocess = None if prev_prev is None else ReLUConvBN(prev_prev, channels, affine=False)
        for way, width in widths.items():
            module = None if width is None else ReLUConvBN(width, channels, affine=False)
            self.register_module(f"preprocess_{way}", module)
        sources = [source for step in range(steps) for source in range(2 + step)]
        self._ops = nn.ModuleList(
            self._edge(channels, tuple(candidates), memory, backend) if source > 0 or prev_prev is not None else None  # type: ignore[misc]  # keeps the others' numbers
            for source in sources
        )
        self.prev_prev = prev_prev is not None
        self.given = [width for width in (prev_prev, *ways) if width is not None]

    def _edge(self, channels: int, candidates: tuple[str, ...], memory: str, backend: str) -> nn.Module:
        """The module of an edge."""
        return MixedOp(channels, 1, candidates, memory=memory, backend=backend)

    def preparation(self) -> list[tuple[Edge, nn.Module]]:
        """The edges from the given states to the preprocessed ones, prev-prev's first, and the module of each."""
        found: list[tuple[Edge, nn.Module]] = []
        target = len(self.given)
        if self.pre_preprocess is not None:
            found.append((Edge(0, target, 1, ("relu_conv_bn",)), self.pre_preprocess))
        first = len(found)
        for source, way in enumerate(self.ways, first):
            like = first + self.ways.index("same") if way == "up" else None
            edge = Edge(source, target + source, 2 if way == "down" else 1, ("resize_conv_bn",), like=like)
            found.append((edge, self.get_submodule(f"preprocess_{way}")))
        return found


class TrellisCell(TrellisModules):
    """A cell of a trellis as one fused operator; see `TrellisModules`."""

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
        inputs = len(self.given)
        graph = _Graph(self, inputs, steps, tuple(candidates))
        self._fused = FusedCell(
            (*self.given, *[channels] * (graph.states - inputs)),
            inputs,
            graph.edges,
            graph.outputs,
            graph.modules,
            memory,
            backend,
            graph.repeats,
        )
        self._rows: Tensor
        self.register_buffer("_rows", torch.tensor(graph.rows), persistent=False)

    @property
    def spec(self) -> Spec:
        """What the operator computes for it in training."""
        return self._fused.spec

    def forward(self, prev_prev: Tensor | None, ways: Sequence[Tensor], weights: Tensor, betas: Tensor) -> Tensor:
        """Σ over ways of β times the concatenated nodes.

        Args:
            prev_prev: (N, C_prev_prev, H, W), None if the cell has none.
            ways: the ends that exist, in the order down, same, up, each (N, C', H', W').
            weights: (edges, len(candidates)), α after softmax, edges node by node, those of a missing prev-prev too.
            betas: (len(ways),), after softmax.

        Returns:
            (N, steps·C, H, W), of the size of "same", or half of "down", rounded up.
        """
        inputs = list(ways) if prev_prev is None else [prev_prev, *ways]
        weights = weights if self.prev_prev else weights[self._rows]
        return self._fused(inputs, torch.cat([weights.flatten(), betas]))


class _Graph:
    """The operator's graph: its edges, in order, and the modules of each.

    States are the inputs, the preprocessed inputs, then for each node the sum of what prev-prev contributes, alike on
    all ways, and the node on each way. Last come the outputs: each node's sum over the ways, weighted by β.
    """

    def __init__(self, cell: TrellisCell, inputs: int, steps: int, candidates: tuple[str, ...]) -> None:
        self.edges: list[Edge] = []
        self.modules: list[nn.Module] = []
        self.repeats: list[int] = []  # of every module, how often its running statistics are updated in a step
        self.rows: list[int] = []  # of α, in the order of the operator's entries
        self.states = inputs
        self._cell, self._candidates = cell, candidates
        self._owners: dict[int | str, int] = {}  # the first edge of every row of α, and of every way's β
        shared, ends = self._preprocess()
        nodes: list[list[int]] = [[] for _ in ends]
        row = 0
        for step in range(steps):
            self._step(row, shared, ends, nodes)
            row += 2 + step
        self.outputs = [self._weighted_sum([way[step] for way in nodes]) for step in range(steps)]

    def _take(self) -> int:
        self.states += 1
        return self.states - 1

    def _add(self, edge: Edge, modules: Sequence[nn.Module], repeats: int = 1) -> None:
        self.edges.append(edge)
        self.modules += modules
        self.repeats += [repeats] * len(modules)

    def _sharing(self, key: int | str) -> int | None:
        """The edge whose parameters and entries of α the next one takes; None for the first of its kind."""
        owner = self._owners.setdefault(key, len(self.edges))
        return None if owner == len(self.edges) else owner

    def _preprocess(self) -> tuple[int | None, list[int]]:
        """Prev-prev's state, if there is one, and those of the ways' ends."""
        states = []
        for edge, module in self._cell.preparation():
            states.append(self._take())
            self._add(edge, [module])
        return (states[0], states[1:]) if self._cell.prev_prev else (None, states)

    def _step(self, row: int, shared: int | None, ends: list[int], nodes: list[list[int]]) -> None:
        """The next node on every way; its edge from prev-prev has row `row` of α."""
        common = None
        if shared is not None:
            common = self._take()
            self._mixed(shared, common, row, len(ends))
        for end, before in zip(ends, nodes, strict=True):
            node = self._take()
            if common is not None:
                self._add(Edge(common, node, 1, ("identity",)), [nn.Identity()])
            for position, source in enumerate([end, *before], 1):
                self._mixed(source, node, row + position)
            before.append(node)

    def _mixed(self, source: int, target: int, row: int, repeats: int = 1) -> None:
        shares = self._sharing(row)
        if shares is None:
            self.rows.append(row)
        modules = self._cell.get_submodule(f"_ops.{row}._ops").children()
        self._add(Edge(source, target, 1, self._candidates, shares), list(modules), repeats)

    def _weighted_sum(self, nodes: list[int]) -> int:
        output = self._take()
        for way, node in zip(self._cell.ways, nodes, strict=True):
            self._add(Edge(node, output, 1, ("skip_connect",), self._sharing(way)), [nn.Identity()])
        return output
