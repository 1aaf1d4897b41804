"""The candidate operations as ordinary modules, with the structure and parameter names of the DARTS papers' code.

The supernets keep their parameters in these modules and compute through `fastnas.ops`; the derived networks run them
as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.ops import CANDIDATES, Depthwise


def _depthwise_stage(channels: int, stage: Depthwise, stride: int, affine: bool) -> list[nn.Module]:
    padding = stage.dilation * (stage.kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, stage.kernel, stride, padding, stage.dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class DepthwiseChain(nn.Module):
    """A separable (two stages) or dilated (one stage) convolution: ReLU, depthwise, 1×1, batch norm for each stage.

    Input (N, C, H, W), output (N, C, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(self, channels: int, stages: tuple[Depthwise, ...], stride: int, affine: bool) -> None:
        super().__init__()
        strides = [stride] + [1] * (len(stages) - 1)
        self.op = nn.Sequential(
            *(m for stage, s in zip(stages, strides, strict=True) for m in _depthwise_stage(channels, stage, s, affine))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


ATROUS = {"dil_conv_3x3": 3, "dil_conv_5x5": 5}
"""Kernels of the candidates that Auto-DeepLab has as dense convolutions of rate 2."""


class ReLUConvBN(nn.Module):
    """ReLU, 1×1 convolution, batch norm. Input (N, C_in, H, W), output (N, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.op = nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(out_channels, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class FactorizedReduce(nn.Module):
    """Halves the resolution with two 1×1 convolutions of stride 2, the second shifted by one pixel, and batch norm.

    Input (N, C_in, H, W), output (N, C_out, ⌈H/2⌉, ⌈W/2⌉): odd sizes are padded at the bottom and right, where DARTS'
    code fails.

    Raises:
        ValueError: `out_channels` is odd.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        if out_channels % 2:
            raise ValueError(f"a factorised reduce needs an even number of output channels, got {out_channels}")
        self.relu = nn.ReLU()
        self.conv_1 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        out: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(shifted)], 1))
        return out


class Zero(nn.Module):
    """The candidate `none`: zeros of the edge's output size."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


_POOLS: dict[str, Callable[[int], nn.Module]] = {
    "max": lambda stride: nn.MaxPool2d(3, stride, padding=1),
    "avg": lambda stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
}


def make_candidate(name: str, channels: int, stride: int, affine: bool, pool_norm: bool) -> nn.Module:
    """The module of candidate `name`; `pool_norm` adds the batch norm that pools have while searching.

    Raises:
        ValueError: the name is not known.
    """
    if name not in CANDIDATES:
        raise ValueError(f"unknown candidate operation {name!r}; known are {', '.join(CANDIDATES)}")
    kind = CANDIDATES[name]
    if kind.pool:
        pool = _POOLS[kind.pool](stride)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=affine)) if pool_norm else pool
    if kind.identity:
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    if not kind.stages:
        return Zero(stride)
    stages = tuple(stage for stage in kind.stages if isinstance(stage, Depthwise))
    return DepthwiseChain(channels, stages, stride, affine)
