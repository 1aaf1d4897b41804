"""The DARTS search network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.genotype import Genotype, decode_darts
from fastnas.nn.mixed import Cell
from fastnas.ops import DARTS_CANDIDATES

STEM_MULTIPLIER = 3
STEPS = 4
EDGES = sum(2 + i for i in range(STEPS))


def edge_softmax(alphas: Tensor) -> Tensor:
    """Softmax over the candidates of each edge, the last dimension (DARTS, equation 2)."""
    return F.softmax(alphas, -1)


class DartsSupernet(nn.Module):
    """The search network of DARTS (Liu et al., ICLR 2019), with the structure and parameter names of the authors' code.

    Input (N, in_channels, H, W), H and W ≥ 1; output logits (N, num_classes). Cells at layers // 3 and 2·layers // 3
    reduce.

    Args:
        channels: width of the first cells (16 in the paper).
        layers: number of cells (8 in the paper).
        num_classes, in_channels: of the data.
        memory: "fast" or "lean", see `fastnas.ops.mixed_cell`.
        backend: "auto", "cpu" or "reference".
        relaxation: makes the candidates' weights of α (14, 8); DARTS' is the softmax over each edge.

    Raises:
        ValueError: a number below 1.
    """

    cell_type: ClassVar[Callable[..., nn.Module]] = Cell  # makes the cells

    def __init__(
        self,
        channels: int = 16,
        layers: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        memory: str = "fast",
        backend: str = "auto",
        relaxation: Callable[[Tensor], Tensor] = edge_softmax,
    ) -> None:
        super().__init__()
        self.relaxation = relaxation
        sizes = {"channels": channels, "layers": layers, "num_classes": num_classes, "in_channels": in_channels}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        width = STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before_previous = previous = width
        reduction_prev = False
        self.cells = nn.ModuleList()
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            channels = 2 * channels if reduction else channels
            self.cells.append(
                self.cell_type(
                    before_previous,
                    previous,
                    channels,
                    reduction,
                    reduction_prev,
                    STEPS,
                    memory=memory,
                    backend=backend,
                )
            )
            before_previous, previous, reduction_prev = previous, STEPS * channels, reduction
        self.classifier = nn.Linear(previous, num_classes)
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(EDGES, len(DARTS_CANDIDATES)))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(EDGES, len(DARTS_CANDIDATES)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        normal, reduce = self.mixtures()
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, *(reduce if cell.reduction else normal))
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits

    def mixtures(self) -> list[tuple[Any, ...]]:
        """What normal and reduction cells take beside their inputs: the candidates' weights, (14, 8)."""
        return [(self.relaxation(alphas),) for alphas in (self.alphas_normal, self.alphas_reduce)]

    def strengths(self) -> list[Tensor]:
        """How strong each candidate is in normal and reduction cells, (14, 8): what `genotype` compares."""
        with torch.no_grad():
            return [self.relaxation(alphas) for alphas in (self.alphas_normal, self.alphas_reduce)]

    def arch_parameters(self) -> list[nn.Parameter]:
        """α of normal and reduction cells, each (14, 8), before softmax."""
        return [self.alphas_normal, self.alphas_reduce]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every other parameter."""
        arch = {id(p) for p in self.arch_parameters()}
        return [p for p in self.parameters() if id(p) not in arch]

    def genotype(self) -> Genotype:
        """The architecture that α stands for now, by the paper's rule (§2.4)."""
        normal, reduce = (strength.tolist() for strength in self.strengths())
        return decode_darts(normal, reduce, DARTS_CANDIDATES, STEPS)
