"""The stock PC-DARTS supernet: plain PyTorch modules, as public implementations write it. Imports nothing from fastnas.

Structure and parameter names are those of Xu et al. (ICLR 2020). One difference: alphas and betas are parameters, hence
in the state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from stock import CANDIDATES, EDGES, NODES, FactorizedReduce, ReLUConvBN, candidates
from torch import Tensor, nn

K = 4


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    count, channels, height, width = x.shape
    x = x.view(count, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(count, -1, height, width)


class MixedOp(nn.Module):
    """The candidates on the first quarter of the channels; the others pass, pooled where the stride is 2."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(candidates(channels // K, stride))
        self.mp = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        width = x.shape[1] // K
        searched = sum(w * op(x[:, :width]) for w, op in zip(weights, self._ops, strict=True))
        others = x[:, width:]
        if searched.shape[2] != x.shape[2]:
            others = self.mp(others)
        return channel_shuffle(torch.cat([searched, others], dim=1), K)


class Cell(nn.Module):
    """`weights` (edges, 8) are alphas, `weights2` (edges,) betas, both after softmax."""

    def __init__(
        self, channels_prev_prev: int, channels_prev: int, channels: int, reduction: bool, reduction_prev: bool
    ) -> None:
        super().__init__()
        self.reduction = reduction
        prepare = FactorizedReduce if reduction_prev else ReLUConvBN
        self.preprocess0 = prepare(channels_prev_prev, channels)
        self.preprocess1 = ReLUConvBN(channels_prev, channels)
        self._ops = nn.ModuleList(
            MixedOp(channels, 2 if reduction and source < 2 else 1)
            for node in range(NODES)
            for source in range(2 + node)
        )

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, weights2: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        offset = 0
        for _ in range(NODES):
            edges = [weights2[offset + j] * self._ops[offset + j](h, weights[offset + j]) for j, h in enumerate(states)]
            offset += len(states)
            states.append(sum(edges))
        return torch.cat(states[-NODES:], dim=1)


class Network(nn.Module):
    """The search network: C=16 and 8 layers have 299,578 weights, 224 alphas and 28 betas.

    Input (N, in_channels, H, W), H and W divisible by 4; output logits (N, num_classes).
    """

    def __init__(self, channels: int = 16, layers: int = 8, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before, previous, reduction_prev = width, width, False
        self.cells = nn.ModuleList()
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            self.cells.append(Cell(before, previous, channels, reduction, reduction_prev))
            before, previous, reduction_prev = previous, NODES * channels, reduction
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(EDGES, CANDIDATES))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(EDGES, CANDIDATES))
        self.betas_normal = nn.Parameter(1e-3 * torch.randn(EDGES))
        self.betas_reduce = nn.Parameter(1e-3 * torch.randn(EDGES))

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            weights = F.softmax(self.alphas_reduce if cell.reduction else self.alphas_normal, dim=-1)
            s0, s1 = s1, cell(s0, s1, weights, self.edge_weights(cell.reduction))
        return self.classifier(self.global_pooling(s1).flatten(1))

    def edge_weights(self, reduction: bool) -> Tensor:
        betas = self.betas_reduce if reduction else self.betas_normal
        start, parts = 0, []
        for edges in range(2, 2 + NODES):
            parts.append(F.softmax(betas[start : start + edges], dim=-1))
            start += edges
        return torch.cat(parts)
