"""The stock DARTS supernet: plain PyTorch modules, as public implementations write it. Imports nothing from fastnas.

It is what fastnas is measured against, and an oracle that shares no code with it. Structure and parameter names are
those of Liu et al. (ICLR 2019): every candidate of every edge is a module of its own, batch norms have no affine
parameters while searching. One difference: the alphas are parameters, hence in the state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NODES = 4
EDGES = sum(2 + node for node in range(NODES))
CANDIDATES = 8


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x.mul(0.0)
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class SepConv(nn.Module):
    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
            nn.ReLU(inplace=False),
            nn.Conv2d(channels, channels, kernel, 1, padding, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class DilConv(nn.Module):
    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ReLUConvBN(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(inplace=False),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class FactorizedReduce(nn.Module):
    """Even sizes only, as in public code."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=False)
        self.conv_1 = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))


def candidates(channels: int, stride: int) -> list[nn.Module]:
    """none, max pool, avg pool, skip, sep 3×3, sep 5×5, dil 3×3, dil 5×5: the paper's eight, in its order."""
    skip = nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    return [
        Zero(stride),
        nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(channels, affine=False)),
        nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), nn.BatchNorm2d(channels, affine=False)),
        skip,
        SepConv(channels, 3, stride),
        SepConv(channels, 5, stride),
        DilConv(channels, 3, stride),
        DilConv(channels, 5, stride),
    ]


class MixedOp(nn.Module):
    """`weights` (8,) are alphas after softmax."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList(candidates(channels, stride))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))


class Cell(nn.Module):
    """Inputs are the outputs of the two cells before, `weights` (edges, 8); the output is (N, nodes * channels, H, W).

    `checkpointed` keeps of every edge its input alone and computes the edge again in backward. Its batch norms then run
    twice a step, and so their running statistics move twice; the gradients are the same.
    """

    def __init__(
        self,
        channels_prev_prev: int,
        channels_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
        *,
        nodes: int = NODES,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        self.reduction, self.nodes, self.checkpointed = reduction, nodes, checkpointed
        prepare = FactorizedReduce if reduction_prev else ReLUConvBN
        self.preprocess0 = prepare(channels_prev_prev, channels)
        self.preprocess1 = ReLUConvBN(channels_prev, channels)
        self._ops = nn.ModuleList(
            MixedOp(channels, 2 if reduction and source < 2 else 1)
            for node in range(nodes)
            for source in range(2 + node)
        )

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edges = zip(self._ops, weights, strict=True)
        for _ in range(self.nodes):
            states.append(sum(self._edge(state, *next(edges)) for state in states))
        return torch.cat(states[-self.nodes :], dim=1)

    def _edge(self, state: Tensor, op: nn.Module, weights: Tensor) -> Tensor:
        if self.checkpointed:
            # An edge draws no random numbers, so there is no generator to restore.
            return checkpoint(op, state, weights, use_reentrant=False, preserve_rng_state=False)
        return op(state, weights)


class Network(nn.Module):
    """The search network: C=16 and 8 layers have 1,930,618 weights and 224 alphas.

    Input (N, in_channels, H, W), H and W divisible by 4; output logits (N, num_classes).
    """

    def __init__(
        self,
        channels: int = 16,
        layers: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        before, previous, reduction_prev = width, width, False
        self.cells = nn.ModuleList()
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            self.cells.append(Cell(before, previous, channels, reduction, reduction_prev, checkpointed=checkpointed))
            before, previous, reduction_prev = previous, NODES * channels, reduction
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(previous, num_classes)
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(EDGES, CANDIDATES))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(EDGES, CANDIDATES))

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            weights = F.softmax(self.alphas_reduce if cell.reduction else self.alphas_normal, dim=-1)
            s0, s1 = s1, cell(s0, s1, weights)
        return self.classifier(self.global_pooling(s1).flatten(1))

    def arch_parameters(self) -> list[nn.Parameter]:
        return [self.alphas_normal, self.alphas_reduce]

    def weight_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if not name.startswith("alphas_")]
