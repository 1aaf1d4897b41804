"""The stock Auto-DeepLab supernet: plain PyTorch, as public implementations write it. Imports nothing from fastnas.

It is what fastnas is measured against, and an oracle that shares no code with it. Liu et al., CVPR 2019, §4; a cell is
run on each of the up to three ways that lead to it, and what it makes of them is added up, weighted by β.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from stock import CANDIDATES, MixedOp, ReLUConvBN, candidates
from torch import Tensor, nn

SCALES = 4
RATES = (24, 12, 6, 3)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class DenseMixedOp(MixedOp):
    """The paper's edge: its atrous convolutions are full ones."""

    def __init__(self, channels: int) -> None:
        nn.Module.__init__(self)
        dense = [
            nn.Sequential(
                nn.ReLU(inplace=False),
                nn.Conv2d(channels, channels, kernel, padding=kernel - 1, dilation=2, bias=False),
                nn.BatchNorm2d(channels, affine=False),
            )
            for kernel in (3, 5)
        ]
        self._ops = nn.ModuleList([*candidates(channels, 1)[:-2], *dense])


class Cell(nn.Module):
    """`widths` are the channels of prev-prev and of the ways from the finer, the same and the coarser scale, or None.

    `forward` takes the tensors in the same order, each (N, C, H', W') or None, and resamples the ways to `size`; the
    result is what the cell makes of each way, (N, steps·channels, *size).
    """

    def __init__(self, widths: list[int | None], channels: int, steps: int, atrous: str = "separable") -> None:
        super().__init__()
        prev_prev, down, same, up = widths
        self.steps = steps
        self.pre_preprocess = ReLUConvBN(prev_prev, channels) if prev_prev else None
        self.preprocess_down = ReLUConvBN(down, channels) if down else None
        self.preprocess_same = ReLUConvBN(same, channels) if same else None
        self.preprocess_up = ReLUConvBN(up, channels) if up else None
        self._ops = nn.ModuleList(
            None
            if prev_prev is None and source == 0
            else MixedOp(channels, 1)
            if atrous == "separable"
            else DenseMixedOp(channels)
            for step in range(steps)
            for source in range(2 + step)
        )

    def forward(
        self,
        prev_prev: Tensor | None,
        down: Tensor | None,
        same: Tensor | None,
        up: Tensor | None,
        size: tuple[int, int],
        weights: Tensor,
    ) -> list[Tensor]:
        s0 = None if prev_prev is None else self.pre_preprocess(prev_prev)
        results = []
        for way, preprocess in (
            (down, self.preprocess_down),
            (same, self.preprocess_same),
            (up, self.preprocess_up),
        ):
            if way is None:
                continue
            states = [s0, preprocess(resize(way, size))]
            edges = list(zip(self._ops, weights, strict=True))
            for _ in range(self.steps):
                entering, edges = edges[: len(states)], edges[len(states) :]
                states.append(
                    sum(
                        op(state, alpha)
                        for state, (op, alpha) in zip(states, entering, strict=True)
                        if state is not None
                    )
                )
            results.append(torch.cat(states[2:], dim=1))
        return results


class Head(nn.Module):
    """ASPP of a scale: 1×1, dilated 3×3 and image pooling of as many channels each; 1×1; 1×1 to the classes."""

    def __init__(self, channels: int, num_classes: int, rate: int) -> None:
        super().__init__()
        self.conv11 = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.conv33 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(channels)
        )
        self.conv_p = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.concate_conv = nn.Sequential(nn.Conv2d(3 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.final_conv = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv_p(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[2:])
        return self.final_conv(self.concate_conv(torch.cat([self.conv11(x), self.conv33(x), pooled], 1)))


class Network(nn.Module):
    """The search network: filters 8, 5 steps, 12 layers and 19 classes have 11,570,580 weights, 160 α and 144 β.

    `atrous` "dense" has the paper's full convolutions instead of DARTS' depthwise ones.

    Input (N, 3, H, W), N at least 2 in training; output logits (N, num_classes, H, W).
    """

    def __init__(
        self, filters: int = 8, steps: int = 5, layers: int = 12, num_classes: int = 19, atrous: str = "separable"
    ) -> None:
        super().__init__()
        half, full = filters // 2 * steps, filters * steps
        self.stem0 = nn.Sequential(nn.Conv2d(3, half, 3, 2, 1), nn.BatchNorm2d(half), nn.ReLU())
        self.stem1 = nn.Sequential(nn.Conv2d(half, half, 3, 1, 1), nn.BatchNorm2d(half), nn.ReLU())
        self.stem2 = nn.Sequential(nn.Conv2d(half, full, 3, 2, 1), nn.BatchNorm2d(full), nn.ReLU())
        self.layers = layers
        widths = [full << scale for scale in range(SCALES)]
        self.cells = nn.ModuleList()
        for layer in range(layers):
            # Scales that the layer before, and the one before that, have reached.
            before, earlier = min(layer, SCALES - 1), min(layer - 1, SCALES - 1)
            for scale in range(min(layer + 1, SCALES - 1) + 1):
                ways = [widths[s] if 0 <= s <= before else None for s in (scale - 1, scale, scale + 1)]
                prev_prev = widths[scale] if scale <= earlier else None
                self.cells.append(Cell([prev_prev, *ways], filters << scale, steps, atrous))
        heads = list(zip(widths, RATES, strict=True))[: min(layers, SCALES - 1) + 1]
        self.heads = nn.ModuleList(Head(width, num_classes, rate) for width, rate in heads)
        self.alphas = nn.Parameter(1e-3 * torch.randn(sum(2 + step for step in range(steps)), CANDIDATES))
        self.betas = nn.Parameter(1e-3 * torch.randn(layers, SCALES, 3))

    def forward(self, x: Tensor) -> Tensor:
        alphas, cells = F.softmax(self.alphas, -1), iter(self.cells)
        stem = self.stem2(self.stem1(self.stem0(x)))
        sizes = [tuple(stem.shape[2:])]
        for _ in range(1, SCALES):
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        earlier: list[Tensor | None] = [None] * SCALES
        before: list[Tensor | None] = [stem, None, None, None]
        for layer in range(self.layers):
            now: list[Tensor | None] = [None] * SCALES
            for scale in range(min(layer + 1, SCALES - 1) + 1):
                sources = [
                    s if 0 <= s < SCALES and before[s] is not None else None for s in range(scale - 1, scale + 2)
                ]
                ways = [None if s is None else before[s] for s in sources]
                made = next(cells)(earlier[scale], *ways, sizes[scale], alphas)
                betas = [self.beta(layer, s, scale) for s in sources if s is not None]
                now[scale] = sum(beta * out for beta, out in zip(betas, made, strict=True))
            earlier, before = before, now
        size = tuple(x.shape[2:])
        return sum(resize(head(out), size) for head, out in zip(self.heads, before, strict=False))

    def beta(self, layer: int, source: int, target: int) -> Tensor:
        """The probability of the way from scale `source` of the layer before to `target`."""
        ways = [s for s in (source - 1, source, source + 1) if 0 <= s < SCALES]
        row = self.betas[layer, source]
        return F.softmax(torch.stack([row[s - source + 1] for s in ways]), 0)[ways.index(target)]

    def arch_parameters(self) -> list[nn.Parameter]:
        return [self.alphas, self.betas]

    def weight_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if name not in ("alphas", "betas")]
