"""The search network of GDAS (Dong and Yang, CVPR 2019): of every edge one candidate, drawn anew in each forward."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnas.nn.fused import FusedCell
from fastnas.nn.mixed import Cell, preprocessing
from fastnas.nn.supernet import DartsSupernet
from fastnas.ops import Edge


class SampledCell(Cell):
    """A DARTS cell that computes one candidate of every edge, each by an operator of its own.

    Arguments, parameters, inputs and output are those of `fastnas.nn.Cell`. A candidate that is not drawn costs
    nothing, gets no gradient, and its running statistics stay.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        channels, self._how = self.spec.channels, (self._fused.memory, self._fused.backend)
        modules = [self.preprocess0, self.preprocess1]
        edges = preprocessing(self.spec.edges[0].stride == 2)
        self._prepare = FusedCell(channels[:4], 2, edges, [2, 3], modules, *self._how)
        self._drawn: dict[tuple[int, int], FusedCell] = {}

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, chosen: list[int]) -> Tensor:  # type: ignore[override]
        """The cell's output; `chosen` is a candidate for every edge, `weights` (edges,) what it is multiplied by."""
        states = list(self._prepare([s0, s1], weights.new_empty(0)).chunk(2, 1))
        row = 0
        while row < len(chosen):
            terms = [self._edge(row + j, chosen[row + j], x, weights) for j, x in enumerate(states)]
            row += len(states)
            states.append(sum(terms[1:], terms[0]))
        return torch.cat(states[2:], 1)

    def _edge(self, row: int, candidate: int, x: Tensor, weights: Tensor) -> Tensor:
        if (row, candidate) not in self._drawn:
            mixed, width = self._ops[row], self.spec.channels[2]
            edge = Edge(0, 1, mixed.stride, (mixed.candidates[candidate],))  # type: ignore[arg-type,index]
            modules = [mixed._ops[candidate]]  # type: ignore[index]
            self._drawn[row, candidate] = FusedCell((width, width), 1, [edge], [1], modules, *self._how)  # type: ignore[arg-type]
        return self._drawn[row, candidate]([x], weights[row : row + 1])


class GdasSupernet(DartsSupernet):
    """The DARTS search network with one candidate of every edge, drawn by Gumbel softmax.

    With o = -log(e), e from the exponential distribution, and p̃ = softmax((log softmax(α) + o) / τ), the candidate of
    the largest p̃ is computed, with the weight 1 and p̃'s gradient (§3.2). Cells of a kind share the draw. Arguments,
    parameters, input and output are those of `DartsSupernet`.

    Attributes:
        temperature: τ.
    """

    cell_type: ClassVar[Any] = SampledCell
    temperature = 10.0

    def mixtures(self) -> list[tuple[Tensor, list[int]]]:
        """What normal and reduction cells take beside their inputs: weights (14,) of candidates drawn, and these."""
        return [self._draw(alphas) for alphas in (self.alphas_normal, self.alphas_reduce)]

    def _draw(self, alphas: Tensor) -> tuple[Tensor, list[int]]:
        # Drawn on the CPU: the same on every device, from the generator that checkpoints hold.
        noise = -torch.empty(alphas.shape, dtype=alphas.dtype).exponential_().log()
        relaxed = F.softmax((F.log_softmax(alphas, -1) + noise.to(alphas.device)) / self.temperature, -1)
        chosen = relaxed.argmax(-1)
        kept = relaxed.gather(-1, chosen[:, None]).squeeze(-1)
        return 1 + (kept - kept.detach()), chosen.tolist()
