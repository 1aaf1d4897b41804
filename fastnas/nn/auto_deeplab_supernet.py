"""The Auto-DeepLab search network.

Liu et al., "Auto-DeepLab", CVPR 2019, §4: one cell for all layers, whose α all share, on a trellis of four scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.genotype import SCALES, AutoDeepLabGenotype, decode_auto_deeplab
from fastnas.nn.deeplab_head import SearchHead, resize
from fastnas.nn.dense_trellis import DenseTrellisCell
from fastnas.nn.trellis import TrellisCell
from fastnas.ops import DARTS_CANDIDATES


class AutoDeepLabSupernet(nn.Module):
    """The search network of Auto-DeepLab: L layers of up to four scales, heads on all scales of the last.

    Input (N, in_channels, H, W) of any size; output logits (N, num_classes, H, W), the sum of the heads' resampled to
    the input's size. Cell n of a layer is at scale 4·2ⁿ; the first layers have only the scales that can be reached.

    Filters 8, 5 steps, 12 layers and 19 classes have 11,570,580 weights, 160 α and 144 β, as the widely used
    implementation.

    Args:
        filters: F; a node at scale s has F·s/4 channels (8 in the paper).
        steps: B, nodes of a cell (5).
        layers: L (12).
        num_classes, in_channels: of the data.
        memory, backend: as for `fastnas.nn.MixedOp`.
        atrous: what the candidates `dil_conv_*` are: "separable", DARTS' depthwise ones, which are fused with all
            others; or "dense", the paper's, which PyTorch convolves (`fastnas.nn.dense_trellis`).

    Raises:
        ValueError: a number below 1, an odd number of filters, or an unknown `atrous`.
    """

    cell_type: ClassVar[Callable[..., nn.Module]] = TrellisCell  # makes those with separable candidates

    def __init__(
        self,
        filters: int = 8,
        steps: int = 5,
        layers: int = 12,
        num_classes: int = 19,
        in_channels: int = 3,
        memory: str = "fast",
        backend: str = "auto",
        atrous: str = "separable",
    ) -> None:
        super().__init__()
        if atrous not in ("separable", "dense"):
            raise ValueError(f"atrous must be separable or dense, got {atrous!r}")
        cell_type = DenseTrellisCell if atrous == "dense" else self.cell_type
        numbers = {"steps": steps, "layers": layers, "num_classes": num_classes, "in_channels": in_channels}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if filters < 2 or filters % 2:
            raise ValueError(f"filters must be even and at least 2, got {filters}: the stem has half as many")
        self.steps = steps
        first, last = filters // 2 * steps, filters * steps
        self.stem0 = _stem(in_channels, first, stride=2)
        self.stem1 = _stem(first, first, stride=1)
        self.stem2 = _stem(first, last, stride=2)
        widths = [last << level for level in range(SCALES)]
        self.reached = [min(layer, SCALES - 1) + 1 for layer in range(layers + 1)]  # scales before every layer
        self.cells = nn.ModuleList()
        for layer in range(layers):
            earlier = self.reached[layer - 1] if layer else 0
            for level in range(self.reached[layer + 1]):
                prev_prev = widths[level] if level < earlier else None
                ways = [widths[s] if self._exists(layer, s) else None for s in (level - 1, level, level + 1)]
                self.cells.append(cell_type(prev_prev, ways, filters << level, steps, memory=memory, backend=backend))
        self.heads = nn.ModuleList(
            SearchHead(widths[level], num_classes, level) for level in range(self.reached[layers])
        )
        edges = sum(2 + step for step in range(steps))
        self.alphas = nn.Parameter(1e-3 * torch.randn(edges, len(DARTS_CANDIDATES)))
        self.betas = nn.Parameter(1e-3 * torch.randn(layers, SCALES, 3))
        self._outside: Tensor
        self.register_buffer("_outside", _ways_outside(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        alphas, betas = F.softmax(self.alphas, -1), self._probabilities()
        stem = self.stem2(self.stem1(self.stem0(x)))
        earlier: list[Tensor] = []
        before: list[Tensor] = [stem]
        cells = iter(self.cells)
        for layer, chances in enumerate(betas):
            now = []
            for level in range(self.reached[layer + 1]):
                sources = [s for s in (level - 1, level, level + 1) if self._exists(layer, s)]
                ways = torch.stack([chances[s, level - s + 1] for s in sources])
                prev_prev = earlier[level] if level < len(earlier) else None
                now.append(next(cells)(prev_prev, [before[s] for s in sources], alphas, ways))
            earlier, before = before, now
        size = (x.shape[2], x.shape[3])
        logits = [resize(head(out), size) for head, out in zip(self.heads, before, strict=True)]
        return sum(logits[1:], logits[0])

    def arch_parameters(self) -> list[nn.Parameter]:
        """α (edges, 8) and β (layers, 4, 3), before softmax."""
        return [self.alphas, self.betas]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every other parameter."""
        arch = {id(p) for p in self.arch_parameters()}
        return [p for p in self.parameters() if id(p) not in arch]

    def genotype(self) -> AutoDeepLabGenotype:
        """The cell and the path that α and β stand for now (§4.3)."""
        alpha = F.softmax(self.alphas.detach(), -1)
        return decode_auto_deeplab(alpha.tolist(), self.betas.detach().tolist(), DARTS_CANDIDATES, self.steps)

    def _exists(self, layer: int, level: int) -> bool:
        """Whether the layer before `layer` has this scale."""
        return 0 <= level < self.reached[layer]

    def _probabilities(self) -> Tensor:
        """β (layers, 4, 3), normalised over the ways that leave a scale inside the trellis."""
        return F.softmax(self.betas.masked_fill(self._outside, -torch.inf), -1)


def _ways_outside() -> Tensor:
    """Which ways down, on and up, (4, 3), leave the trellis."""
    level, way = torch.meshgrid(torch.arange(SCALES), torch.arange(-1, 2), indexing="ij")
    return (level + way < 0) | (level + way >= SCALES)


def _stem(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU())
