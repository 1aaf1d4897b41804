"""The network that an Auto-DeepLab genotype stands for, to be trained from scratch.

Liu et al., "Auto-DeepLab", CVPR 2019, §5; its details are those of the definition that the authors published
(tensorflow/models, research/deeplab/core).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.genotype import SCALES, AutoDeepLabGenotype
from fastnas.nn.deeplab_head import ASPP, Decoder, resize
from fastnas.nn.derived import DerivedCell, plain_operation
from fastnas.nn.operations import ATROUS

STEM_WIDTHS = (64, 64, 128)
LOW_LEVEL_CELL = 2


class DenseAtrousConv(nn.Module):
    """ReLU, dense convolution of rate 2, batch norm: the paper's atrous convolution.

    Input (N, C, H, W), output (N, C, ⌈H/stride⌉, ⌈W/stride⌉). With stride 2, ReLU's result is resampled to half the
    size and the convolution has rate 1, as in the authors' code.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        rate = 1 if stride == 2 else 2
        padding = rate * (kernel // 2)
        self.conv = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=rate, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        if self.stride == 2:
            x = resize(x, half(x.shape[2], x.shape[3]))
        out: Tensor = self.bn(self.conv(x))
        return out


class AutoDeepLabNetwork(nn.Module):
    """A network of cells of one genotype along its path, with ASPP and a decoder.

    Input (N, in_channels, H, W) of any size; output logits (N, num_classes, H, W). A cell that goes down to a coarser
    scale strides in the operations that read its inputs; before one that goes up, the previous cell's output is
    resampled. The decoder reads the third cell (the last, if there are fewer).

    Args:
        genotype: the cell and the path.
        filters: F; a node at scale s has F·s/4 channels. 20, 32 and 48 are the paper's S, M and L.
        num_classes, in_channels: of the data.
        atrous: "dense" as in the paper, or "separable", DARTS' depthwise dilated convolutions.
        drop_path: probability of dropping a path in the last cell in training, and proportionally less before; the
            attribute may be raised during training, as the paper does.

    Raises:
        ValueError: a number out of range, or an unknown `atrous`; in `forward`, training on a single image, of which
            the batch norm after image pooling cannot take statistics.
    """

    def __init__(
        self,
        genotype: AutoDeepLabGenotype,
        filters: int = 20,
        num_classes: int = 19,
        in_channels: int = 3,
        atrous: str = "dense",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        _check(filters, num_classes, in_channels, atrous, drop_path)
        self.path, self.drop_path = genotype.path, drop_path
        self.stem0, self.stem1 = _stems(in_channels)
        channels = list(STEM_WIDTHS[1:])
        levels = [0, *genotype.path]
        self.cells = nn.ModuleList()
        for before, level in pairwise(levels):
            width, down = filters << level, level > before
            make = partial(_operation, atrous=atrous)
            self.cells.append(DerivedCell(genotype.cell, channels[-2], channels[-1], width, down, False, make))
            channels.append(len(genotype.cell.concat) * width)
        self.low_level_cell = min(LOW_LEVEL_CELL, len(self.cells) - 1)
        self.aspp = ASPP(channels[-1], levels[-1])
        self.decoder = Decoder(channels[2 + self.low_level_cell], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        if self.training and x.shape[0] < 2:
            raise ValueError(f"training takes at least 2 images at once, got {x.shape[0]}: image pooling is normalised")
        drop = self.drop_path if self.training else 0.0
        s0 = self.stem0(x)
        s1 = low = self.stem1(s0)
        sizes = [(s1.shape[2], s1.shape[3])]
        for _ in range(1, SCALES):
            sizes.append(half(*sizes[-1]))
        before = 0
        for i, (cell, level) in enumerate(zip(self.cells, self.path, strict=True)):
            size = sizes[min(before, level)]
            s1_in = resize(s1, size)
            s0, s1 = s1, cell(resize(s0, size), s1_in, drop * (i + 1) / len(self.cells))
            low = s1 if i == self.low_level_cell else low
            before = level
        logits = self.decoder(self.aspp(F.relu(s1)), low, sizes[0])
        return resize(logits, (x.shape[2], x.shape[3]))


def half(height: int, width: int) -> tuple[int, int]:
    """The size at the next coarser scale."""
    return -(-height // 2), -(-width // 2)


def _operation(name: str, channels: int, stride: int, atrous: str) -> nn.Module:
    if atrous == "dense" and name in ATROUS:
        return DenseAtrousConv(channels, ATROUS[name], stride)
    return plain_operation(name, channels, stride)


def _stems(in_channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three 3×3 convolutions, in two parts: the first cell's prev-prev is what the second convolution gives."""
    first, second, third = STEM_WIDTHS
    return (
        nn.Sequential(
            nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second),
        ),
        nn.Sequential(nn.ReLU(), nn.Conv2d(second, third, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(third)),
    )


def _check(filters: int, num_classes: int, in_channels: int, atrous: str, drop: float) -> None:
    for name, value in {"filters": filters, "num_classes": num_classes, "in_channels": in_channels}.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if atrous not in ("dense", "separable"):
        raise ValueError(f"atrous must be dense or separable, got {atrous!r}")
    if not 0 <= drop < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {drop}")
