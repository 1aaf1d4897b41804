"""Supernets as other people write them, small, in the styles of DARTS, PC-DARTS and Auto-DeepLab, with variations.

They import nothing from fastnas and share only the candidates of `benchmarks/stock.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import stock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

C, SIZE = 4, 8


class FunctionalSep(nn.Module):
    """A separable convolution whose ReLUs are functions and whose modules are listed out of order."""

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool = False) -> None:
        super().__init__()
        self.norm_b = nn.BatchNorm2d(channels, affine=affine)
        self.norm_a = nn.BatchNorm2d(channels, affine=affine)
        self.point_a = nn.Conv2d(channels, channels, 1, bias=False)
        self.point_b = nn.Conv2d(channels, channels, 1, bias=False)
        pad = kernel // 2
        self.depth_b = nn.Conv2d(channels, channels, kernel, 1, pad, groups=channels, bias=False)
        self.depth_a = nn.Conv2d(channels, channels, kernel, stride, pad, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_a(self.point_a(self.depth_a(F.relu(x))))
        return self.norm_b(self.point_b(self.depth_b(F.relu(x))))


class WeightsAsList(stock.MixedOp):
    """The candidates in another order, weights as a list of scalars."""

    def __init__(self, channels: int = C, stride: int = 1) -> None:
        super().__init__(channels, stride)
        self._ops = nn.ModuleList([self._ops[i] for i in (4, 3, 7, 0, 1, 6, 2, 5)])

    def forward(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        return sum(op(x) * w for w, op in zip(weights, self._ops, strict=True))


class SoftmaxInside(nn.Module):
    """α is the edge's own, its softmax is taken inside, candidates lie in a dictionary, the sum is written out."""

    def __init__(self, channels: int = C, stride: int = 1) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(8))
        self.candidate_ops = nn.ModuleDict(
            {f"primitive-{i}": m for i, m in enumerate(stock.candidates(channels, stride))}
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.alpha, 0)
        out: Tensor | float = 0.0
        for i, op in enumerate(self.candidate_ops.values()):
            out = out + weights[i].view(1, 1, 1, 1) * op(x)
        return out


class MissingCandidates(stock.MixedOp):
    """Some candidates are None, those of small weight are skipped, the skip connection is dropped out."""

    def __init__(self, channels: int = C, stride: int = 1) -> None:
        super().__init__(channels, stride)
        entries = list(self._ops)
        entries[1] = entries[6] = None
        entries[3] = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
        self._ops = nn.ModuleList(entries)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out = [w * op(x) for w, op in zip(weights, self._ops, strict=True) if op is not None and w > 0.15]
        return sum(out) if out else torch.zeros_like(x)


class BarePools(stock.MixedOp):
    """Pools without batch norm, affine batch norms elsewhere, a 7×7 convolution."""

    def __init__(self, channels: int = C, stride: int = 1) -> None:
        super().__init__(channels, stride)
        self._ops[1], self._ops[2] = self._ops[1][0], self._ops[2][0]
        self._ops[4] = FunctionalSep(channels, 3, stride, affine=True)
        self._ops[5] = FunctionalSep(channels, 7, stride, affine=True)


class PartialChannels(nn.Module):
    """PC-DARTS: the candidates see a quarter of the channels, the rest passes, channels are shuffled."""

    def __init__(self, channels: int = 4 * C, stride: int = 1) -> None:
        super().__init__()
        self.mp = nn.MaxPool2d(2, 2)
        self._ops = nn.ModuleList(stock.candidates(channels // 4, stride))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        part = x.shape[1] // 4
        mixed = sum(w * op(x[:, :part]) for w, op in zip(weights, self._ops, strict=True))
        rest = x[:, part:]
        rest = rest if mixed.shape[2] == x.shape[2] else self.mp(rest)
        out = torch.cat([mixed, rest], dim=1)
        n, c, h, w = out.shape
        return out.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


class _Reversed(torch.autograd.Function):
    """Gradients change their sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


class AlikeSlices(stock.MixedOp):
    """Every candidate reads the same numbers, but the gradients of four go other ways: doubled, turned, cut off."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        def cut() -> Tensor:
            return x[:, 1 : 1 + C]

        inputs = [cut() for _ in self._ops]
        if inputs[3].requires_grad:
            inputs[3].register_hook(lambda g: 2 * g)
        inputs[4], inputs[5] = _Reversed.apply(cut()), _Reversed.apply(x)[:, 1 : 1 + C]
        inputs[6] = cut().detach()
        return sum(w * op(h) for w, op, h in zip(weights, self._ops, inputs, strict=True))


class SampledPath(stock.MixedOp):
    """In training the edge is dropped with a probability; one candidate also runs without gradients."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out = sum(w * op(x) for w, op in zip(weights, self._ops, strict=True))
        with torch.no_grad():
            alone = self._ops[4](2 * x)
        out = out + alone
        if self.training:
            keep = torch.empty(x.shape[0], 1, 1, 1, dtype=x.dtype).bernoulli_(0.7)
            out = out.div(0.7).mul(keep)
        return out


class SharedWeights(nn.Module):
    """Two edges with the same candidates, one after the other, and a residual."""

    def __init__(self, channels: int = C) -> None:
        super().__init__()
        self.edge = stock.MixedOp(channels, 1)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        y = self.edge(x, weights)
        return self.edge(y, weights) + y + x


class Unused(stock.MixedOp):
    """A candidate's result is not used, yet its running statistics move."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out = [op(x) for op in self._ops]
        return sum(w * o for w, o in zip(weights[:5], out[:5], strict=True))


class PCCell(nn.Module):
    """A cell of PC-DARTS: every edge has a weight of its own."""

    def __init__(self, before: int = 12, width: int = 12, channels: int = 4 * C, reduction: bool = False) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = stock.ReLUConvBN(before, channels), stock.ReLUConvBN(width, channels)
        self.nodes = 2
        self._ops = nn.ModuleList(
            PartialChannels(channels, 2 if reduction and j < 2 else 1) for i in range(2) for j in range(2 + i)
        )

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, weights2: Tensor) -> Tensor:
        states, offset = [self.preprocess0(s0), self.preprocess1(s1)], 0
        for _ in range(self.nodes):
            node = sum(
                weights2[offset + j] * self._ops[offset + j](h, weights[offset + j]) for j, h in enumerate(states)
            )
            offset += len(states)
            states.append(node)
        return torch.cat(states[-self.nodes :], dim=1)


class StackedCell(nn.Module):
    """A cell that stacks its edges' results, by name, and returns its nodes as a list."""

    def __init__(self, width: int = 12, channels: int = C) -> None:
        super().__init__()
        self.pre = nn.ModuleList([stock.ReLUConvBN(width, channels) for _ in range(2)])
        self.edges = nn.ModuleDict({f"{i}<-{j}": stock.MixedOp(channels, 1) for i in range(2, 4) for j in range(i)})

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> list[Tensor]:
        states = [pre(s) for pre, s in zip(self.pre, (s0, s1), strict=True)]
        rows = iter(weights)
        for i in range(2, 4):
            states.append(torch.stack([self.edges[f"{i}<-{j}"](states[j], next(rows)) for j in range(i)]).sum(0))
        return states[2:]


class TrellisCell(nn.Module):
    """Auto-DeepLab: one set of candidates, run for up to three inputs; entries may be None; returns a list."""

    def __init__(
        self, channels: int = C, steps: int = 2, prev_prev: int = 12, down: int = 6, same: int = 12, up: int = 24
    ) -> None:
        super().__init__()
        self.steps = steps
        widths = {"pre_preprocess": prev_prev, "preprocess_down": down, "preprocess_same": same, "preprocess_up": up}
        for name, width in widths.items():
            setattr(self, name, stock.ReLUConvBN(width, channels) if width else None)
        self._ops = nn.ModuleList(
            stock.MixedOp(channels, 1) if j or prev_prev else None for i in range(steps) for j in range(2 + i)
        )

    def forward(
        self, s0: Tensor | None, down: Tensor | None, same: Tensor | None, up: Tensor | None, alphas: Tensor
    ) -> list[Tensor]:
        size = None if same is None else same.shape[2:]
        inputs = []
        if down is not None:
            size = size or tuple((s + 1) // 2 for s in down.shape[2:])
            inputs.append(self.preprocess_down(self._resized(down, size)))
        if same is not None:
            inputs.append(self.preprocess_same(same))
        if up is not None:
            inputs.append(self.preprocess_up(self._resized(up, size)))
        s0 = None if s0 is None else self.pre_preprocess(s0)
        return [self._path(s0, s1, alphas) for s1 in inputs]

    @staticmethod
    def _resized(x: Tensor, size) -> Tensor:  # type: ignore[no-untyped-def]
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)

    def _path(self, s0: Tensor | None, s1: Tensor, alphas: Tensor) -> Tensor:
        states, offset = [s0, s1], 0
        for _ in range(self.steps):
            node = []
            for j, h in enumerate(states):
                op = self._ops[offset + j]
                if h is None or op is None:
                    continue
                node.append(op(h, alphas[offset + j]))
            offset += len(states)
            states.append(sum(node))
        return torch.cat(states[-self.steps :], dim=1)


class Spoilt(stock.MixedOp):
    """An edge whose candidate 4 is the given one."""

    def __init__(self, candidate: nn.Module, stride: int = 1) -> None:
        super().__init__(C, stride)
        self._ops[4] = candidate


def chain(
    channels: int = C,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    relu: nn.Module | None = None,
    **depthwise: Any,
) -> nn.Sequential:
    """ReLU, depthwise 3×3, 1×1, norm, with something changed."""
    how = {"bias": depthwise.pop("point_bias", False), "groups": depthwise.pop("point_groups", 1)}
    point = nn.Conv2d(channels, channels, 1, **how)
    how = {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": channels, "bias": False} | depthwise
    return nn.Sequential(relu or nn.ReLU(), nn.Conv2d(channels, channels, **how), point, norm(channels))


class OwnForward(nn.Conv2d):
    """A convolution that computes something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2
