"""What turns features into a map of classes: ASPP and decoder of DeepLabv3+ (Chen et al., ECCV 2018, §3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 256
LOW_WIDTH = 48
DROPOUT = 0.1
FINEST_RATES = (24, 48, 72)  # of ASPP at scale 4; DeepLab's 12, 24, 36 at scale 8 and 6, 12, 18 at scale 16 follow


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) to (N, C, *size), bilinear, the corners' pixels on each other."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, rate: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, batch norm, ReLU."""
    padding = rate * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling with its five branches: 1×1, three atrous 3×3, image pooling; then 1×1, dropout.

    Input (N, in_channels, H, W), output (N, 256, H, W).

    Args:
        level: of the input, 0 for scale 4 to 3 for scale 32; the rates see the same piece of the image at each.
    """

    def __init__(self, in_channels: int, level: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_bn_relu(in_channels, WIDTH, 1)]
            + [conv_bn_relu(in_channels, WIDTH, 3, rate >> level) for rate in FINEST_RATES]
        )
        self.pooling = conv_bn_relu(in_channels, WIDTH, 1)
        self.project = conv_bn_relu((len(self.branches) + 1) * WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pooling(x.mean((2, 3), keepdim=True))
        outs = [branch(x) for branch in self.branches] + [pooled.expand(-1, -1, *x.shape[2:])]
        out: Tensor = self.dropout(self.project(torch.cat(outs, 1)))
        return out


class SearchHead(nn.Module):
    """The head of one scale while searching: ASPP of three branches, then a classifier.

    1×1, atrous 3×3 and image pooling have as many channels as the input; their concatenation goes through a 1×1 to as
    many again, and a 1×1 to the classes. Input (N, C, H, W), output (N, num_classes, H, W).

    A single image leaves one value per channel after image pooling, of which PyTorch takes no batch statistics and
    refuses; here that norm then uses its running statistics, so that one large image can be searched on.

    Args:
        level: of the input, 0 for scale 4 to 3 for scale 32; the rate sees the same piece of the image at each.
    """

    def __init__(self, channels: int, num_classes: int, level: int) -> None:
        super().__init__()
        rate = FINEST_RATES[0] >> level
        self.conv11 = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        conv33 = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=False)
        self.conv33 = nn.Sequential(conv33, nn.BatchNorm2d(channels))
        self.conv_p = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.concate_conv = nn.Sequential(nn.Conv2d(3 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.final_conv = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self._pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        out: Tensor = self.final_conv(self.concate_conv(torch.cat([self.conv11(x), self.conv33(x), pooled], 1)))
        return out

    def _pool(self, x: Tensor) -> Tensor:
        conv, norm, relu = self.conv_p
        if x.shape[0] > 1 or not self.training:
            out: Tensor = self.conv_p(x)
            return out
        assert isinstance(norm, nn.BatchNorm2d)
        x = F.batch_norm(conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        out = relu(x)
        return out


class Decoder(nn.Module):
    """Refines features at the resolution of earlier ones and classifies every pixel.

    Inputs (N, 256, h, w) and (N, low_channels, h', w'); output logits (N, num_classes, *size).
    """

    def __init__(self, low_channels: int, num_classes: int) -> None:
        super().__init__()
        self.low = conv_bn_relu(low_channels, LOW_WIDTH, 1)
        self.refine = nn.Sequential(conv_bn_relu(WIDTH + LOW_WIDTH, WIDTH, 3), conv_bn_relu(WIDTH, WIDTH, 3))
        self.classifier = nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, features: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        both = torch.cat([resize(features, size), resize(self.low(low), size)], 1)
        logits: Tensor = self.classifier(self.refine(both))
        return logits
