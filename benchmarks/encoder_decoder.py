"""A plain encoder-decoder with skip connections (U-Net, Ronneberger et al., 2015), as a baseline for segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4


class EncoderDecoder(nn.Module):
    """Input (N, 3, H, W) of any size, output logits (N, num_classes, H, W). Level n has width·2ⁿ channels."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.drop_path = 0.0  # what the training sets of networks that have paths
        widths = [width << level for level in range(LEVELS)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(widths[i] + widths[i + 1], widths[i]) for i in range(LEVELS - 1))
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        for i in reversed(range(LEVELS - 1)):
            larger = F.interpolate(x, skips[i].shape[2:], mode="bilinear", align_corners=True)
            x = self.up[i](torch.cat([skips[i], larger], 1))
        return self.classifier(x)

    @classmethod
    def of_size(cls, parameters: int, num_classes: int) -> EncoderDecoder:
        """The one whose number of parameters is closest to `parameters`."""
        counts = {width: _count(cls(width, num_classes)) for width in range(1, 65)}
        return cls(min(counts, key=lambda width: abs(counts[width] - parameters)), num_classes)


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
