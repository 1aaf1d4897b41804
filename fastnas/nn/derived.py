"""The networks that a genotype stands for, to be trained from scratch.

DARTS, §3.2; NetworkCIFAR and NetworkImageNet of its code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.genotype import INPUTS, CellGenotype, Genotype
from fastnas.nn.operations import FactorizedReduce, ReLUConvBN, make_candidate

STEMS = ("cifar", "imagenet")
STEM_MULTIPLIER = 3


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zeroes whole samples of (N, C, H, W) with `probability` and scales the others up, so that the expectation stays.

    Larsson et al., "FractalNet", ICLR 2017; per sample as in DARTS.
    """
    keep = 1.0 - probability
    mask = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)
    return x * (mask / keep)


def plain_operation(name: str, channels: int, stride: int) -> nn.Module:
    """A candidate as DARTS trains it from scratch: affine batch norms, none after pools."""
    return make_candidate(name, channels, stride, affine=True, pool_norm=False)


class DerivedCell(nn.Module):
    """A cell of a genotype: every node is the sum of its operations, the output the concatenation of `genotype.concat`.

    Inputs (N, C_prev_prev, H', W') and (N, C_prev, H, W); output (N, len(concat)·channels, H, W), or ⌈H/2⌉, ⌈W/2⌉ if
    it reduces. `make_operation` makes the module of an operation, from its name, channels and stride.
    """

    def __init__(
        self,
        genotype: CellGenotype,
        channels_prev_prev: int,
        channels_prev: int,
        channels: int,
        reduction: bool,
        reduction_prev: bool,
        make_operation: Callable[[str, int, int], nn.Module] = plain_operation,
    ) -> None:
        super().__init__()
        prepare = FactorizedReduce if reduction_prev else ReLUConvBN
        self.preprocess0 = prepare(channels_prev_prev, channels, affine=True)
        self.preprocess1 = ReLUConvBN(channels_prev, channels, affine=True)
        self.concat = genotype.concat
        self.sources = [[source for _, source in node] for node in genotype.nodes]
        self._ops = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and source < INPUTS else 1)
            for node in genotype.nodes
            for name, source in node
        )

    def forward(self, s0: Tensor, s1: Tensor, drop: float) -> Tensor:
        """The cell's output; `drop` is the probability with which a path is dropped, 0 for none."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        ops = iter(self._ops)
        for sources in self.sources:
            node = [self._path(next(ops), states[source], drop) for source in sources]
            states.append(sum(node[1:], node[0]))
        return torch.cat([states[i] for i in self.concat], 1)

    @staticmethod
    def _path(op: nn.Module, x: Tensor, drop: float) -> Tensor:
        out: Tensor = op(x)
        return drop_path(out, drop) if drop > 0 and not isinstance(op, nn.Identity) else out


class DartsNetwork(nn.Module):
    """A network of cells of one genotype.

    Input (N, in_channels, H, W). Output logits (N, num_classes); in training mode with an auxiliary head, that and
    the head's logits. Parameters have the names of the authors' code, so that weights trained there can be loaded.

    Args:
        genotype: its cells.
        channels: width of the first cells (36 for CIFAR-10, 48 for ImageNet in the paper).
        layers: number of cells (20 and 14); those at layers // 3 and 2·layers // 3 reduce.
        num_classes, in_channels: of the data.
        auxiliary: adds a head after the cell at 2·layers // 3 (weighted 0.4 in the paper's loss).
        drop_path: probability of dropping a path in training; the attribute may be raised during training, as the
            paper does.
        stem: "cifar" keeps the resolution, "imagenet" divides it by 8.

    Raises:
        ValueError: a number out of range, an unknown stem, or an odd `channels` with the stem "imagenet".
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int,
        layers: int,
        num_classes: int,
        auxiliary: bool = False,
        drop_path: float = 0.0,
        stem: str = "cifar",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        _check(channels, layers, num_classes, in_channels, drop_path, stem)
        self.drop_path = drop_path
        self.imagenet = stem == "imagenet"
        if self.imagenet:
            self.stem0, self.stem1 = _imagenet_stems(in_channels, channels)
        else:
            self.stem = _cifar_stem(in_channels, channels)
        before_previous = previous = channels if self.imagenet else channels * STEM_MULTIPLIER
        reduction_prev = self.imagenet
        self.cells = nn.ModuleList()
        self.auxiliary_after = 2 * layers // 3
        auxiliary_channels = previous
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            channels = 2 * channels if reduction else channels
            shape = genotype.reduce if reduction else genotype.normal
            self.cells.append(DerivedCell(shape, before_previous, previous, channels, reduction, reduction_prev))
            before_previous, previous, reduction_prev = previous, len(shape.concat) * channels, reduction
            if layer == self.auxiliary_after:
                auxiliary_channels = previous
        self.auxiliary_head = AuxiliaryHead(auxiliary_channels, num_classes, stem) if auxiliary else None
        self.classifier = nn.Linear(previous, num_classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits, with those of the auxiliary head in training mode if there is one."""
        drop = self.drop_path if self.training else 0.0
        s0, s1 = self._stems(x)
        auxiliary_logits: Tensor | None = None
        for i, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, drop)
            if i == self.auxiliary_after and self.auxiliary_head is not None and self.training:
                auxiliary_logits = self.auxiliary_head(s1)
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def _stems(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.imagenet:
            s0 = self.stem0(x)
            return s0, self.stem1(s0)
        s = self.stem(x)
        return s, s


class AuxiliaryHead(nn.Module):
    """Classifies what leaves the second reduction, (N, C, H, W), to give earlier cells a gradient of their own.

    The ImageNet head has no batch norm after its second convolution, as in the published code, which keeps its
    parameter count.
    """

    def __init__(self, channels: int, num_classes: int, stem: str) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            _PoolToTwo(stride=3 if stem == "cifar" else 2),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([nn.BatchNorm2d(768)] if stem == "cifar" else []),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class _PoolToTwo(nn.Module):
    """Average pool to 2×2: by the published head's windows of 5 where these give 2×2, adaptively for other sizes.

    They do for 8×8 at stride 3 (CIFAR images of 32×32) and for 7×7 at stride 2 (ImageNet images of 224×224; the 14×14
    in a comment of the published code gives 5×5, which the published classifier cannot take).
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if all((size - 5) // self.stride == 1 for size in x.shape[2:]):
            return F.avg_pool2d(x, 5, self.stride)
        return F.adaptive_avg_pool2d(x, 2)


def _cifar_stem(in_channels: int, channels: int) -> nn.Sequential:
    width = channels * STEM_MULTIPLIER
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))


def _imagenet_stems(in_channels: int, channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    first = nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    second = nn.Sequential(
        nn.ReLU(), nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)
    )
    return first, second


def _check(channels: int, layers: int, num_classes: int, in_channels: int, drop: float, stem: str) -> None:
    numbers = {"channels": channels, "layers": layers, "num_classes": num_classes, "in_channels": in_channels}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= drop < 1:
        raise ValueError(f"drop_path must be at least 0 and below 1, got {drop}")
    if stem not in STEMS:
        raise ValueError(f"stem must be cifar or imagenet, got {stem!r}")
    if stem == "imagenet" and channels % 2:
        raise ValueError(f"channels must be even with the imagenet stem, got {channels}")
