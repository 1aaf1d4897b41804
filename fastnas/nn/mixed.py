"""The mixed operation and the cell of a DARTS supernet, on the fused operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from fastnas.nn.fused import FusedCell
from fastnas.nn.operations import FactorizedReduce, ReLUConvBN, make_candidate
from fastnas.ops import DARTS_CANDIDATES, Edge, Spec


class MixedOp(nn.Module):
    """An edge: Σₖ weightsₖ·opₖ(x) over its candidates (DARTS, equation 2).

    Input (N, C, H, W), output (N, C, ⌈H/stride⌉, ⌈W/stride⌉).

    Args:
        channels: C.
        stride: 1 or 2.
        candidates: names from `fastnas.ops.CANDIDATES`, in any order, with repetition.
        affine: whether batch norms have γ and β.
        memory: "fast" or "lean", see `fastnas.ops.mixed_cell`.
        backend: "auto", "cpu" or "reference".

    Raises:
        ValueError: an unknown candidate or another stride.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        candidates: Sequence[str] = DARTS_CANDIDATES,
        affine: bool = False,
        memory: str = "fast",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.stride, self.candidates = stride, tuple(candidates)
        self._ops = nn.ModuleList(make_candidate(name, channels, stride, affine, pool_norm=True) for name in candidates)
        edge = Edge(0, 1, stride, self.candidates)
        self._fused = FusedCell((channels, channels), 1, [edge], [1], list(self._ops), memory, backend)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """The edge's output; `weights` (len(candidates),) are α after softmax."""
        return self._fused([x], weights)


def preprocessing(reduction_prev: bool) -> list[Edge]:
    """The edges that bring a cell's two inputs, states 0 and 1, to its channels, states 2 and 3."""
    first = Edge(0, 2, 2, ("factorized_reduce",)) if reduction_prev else Edge(0, 2, 1, ("relu_conv_bn",))
    return [first, Edge(1, 3, 1, ("relu_conv_bn",))]


class Cell(nn.Module):
    """A cell of `steps` nodes, each the sum of the edges from all states before it; the output is their concatenation.

    DARTS, §2.1. Inputs: the outputs of the two cells before, (N, C_prev_prev, H', W') and (N, C_prev, H, W), brought to
    `channels` by a 1×1 convolution each, or a factorised reduce where the cell before was a reduction. Output
    (N, steps·channels, H, W), or half of H and W, rounded up, if the cell is a reduction itself.

    Args:
        channels_prev_prev, channels_prev, channels: widths of the inputs and of the cell's states.
        reduction: edges from the inputs have stride 2.
        reduction_prev: the cell before was a reduction.
        steps: nodes.
        candidates: of every edge.
        memory, backend: as for `MixedOp`.
    """

    edge_type: ClassVar[Callable[..., MixedOp]] = MixedOp  # makes the edges

    def __init__(
        self,
        channels_prev_prev: int,
        channels_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
        steps: int = 4,
        candidates: Sequence[str] = DARTS_CANDIDATES,
        memory: str = "fast",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.reduction = reduction
        prepare = FactorizedReduce if reduction_prev else ReLUConvBN
        self.preprocess0 = prepare(channels_prev_prev, channels, affine=False)
        self.preprocess1 = ReLUConvBN(channels_prev, channels, affine=False)
        wires = [(j, i + 2, 2 if reduction and j < 2 else 1) for i in range(steps) for j in range(i + 2)]
        edges = [self.edge_type(channels, stride, candidates, memory=memory, backend=backend) for _, _, stride in wires]
        self._ops = nn.ModuleList(edges)
        # The operator's states: the two inputs, the two preprocessed ones, the nodes.
        graph = [
            *preprocessing(reduction_prev),
            *(Edge(source + 2, target + 2, stride, tuple(candidates)) for source, target, stride in wires),
        ]
        modules = [self.preprocess0, self.preprocess1, *(op for mixed in edges for op in mixed._ops)]
        widths = (channels_prev_prev, channels_prev, *[channels] * (steps + 2))
        self._fused = FusedCell(widths, 2, graph, range(4, steps + 4), modules, memory, backend)

    @property
    def spec(self) -> Spec:
        """What the operator computes for it in training."""
        return self._fused.spec

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """The cell's output; `weights` (edges, len(candidates)) are α after softmax, edges node by node."""
        return self._fused([s0, s1], weights.flatten())
