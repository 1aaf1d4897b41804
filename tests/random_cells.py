"""Random cells: candidates, wiring, sizes, and the ways in which they are combined."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import foreign
import stock
import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...]


def random_cell(seed: int) -> tuple[nn.Module, Inputs]:
    """A cell in double precision, and what it is called with."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    parts = draw.choice([1, 1, 2])
    width = parts * draw.choice([2, 4, 6])
    before = [draw.choice([3, 5, width]) for _ in range(2)]
    reduction = draw.random() < 0.3
    size = draw.choice([4, 6, 8]) if reduction else draw.choice([4, 5, 7, 8])
    # The first input of a cell after a reduction is twice as large; its preprocessing halves it.
    scale = 2 if draw.random() < 0.2 else 1
    cell = RandomCell(draw, before, width, parts, reduction, scale).double()
    _spoil_modes(draw, cell)
    batch = draw.choice([2, 3])
    images = [
        torch.randn(batch, c, s, s).double().requires_grad_(draw.random() < 0.8)
        for c, s in zip(before, (scale * size, size), strict=True)
    ]
    return cell, (*images, *cell.random_weights(draw))


class RandomCell(nn.Module):
    """Two inputs, one to three nodes; `weights` hold a row for each edge, `betas` a number."""

    def __init__(
        self, draw: random.Random, before: Sequence[int], width: int, parts: int, reduction: bool, scale: int
    ) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(
            [
                _preprocess(draw, before[0], width, scale),
                _preprocess(draw, before[1], width, 1),
            ]
        )
        nodes = draw.randint(1, 3)
        self.sources = [sorted(draw.sample(range(2 + i), draw.randint(1, 2 + i))) for i in range(nodes)]
        self.edges = nn.ModuleDict()
        shared: nn.Module | None = None
        for i, sources in enumerate(self.sources):
            for j in sources:
                stride = 2 if reduction and j < 2 else 1
                edge = shared if shared is not None and stride == 1 and draw.random() < 0.1 else None
                self.edges[f"{i}<-{j}"] = edge or RandomEdge(draw, width, stride, parts)
                shared = self.edges[f"{i}<-{j}"] if stride == 1 else shared
        self.sum = draw.choice([sum, _loop, _in_place, _stacked])
        self.out = draw.choice([_concatenated, _last, _mean, list])
        self.weighted = draw.random() < 0.3

    def random_weights(self, draw: random.Random) -> list[Any]:
        """Rows and edges' weights, as a matrix or as a list of lists."""
        edges, most = len(self.edges), max(len(e.ops) for e in self.edges.values())  # type: ignore[arg-type]
        rows = torch.softmax(torch.randn(edges, most).double(), 1).requires_grad_()
        betas = torch.rand(edges).double().requires_grad_()
        if draw.random() < 0.3:
            return [[[w.detach().requires_grad_() for w in row] for row in rows], betas]
        return [rows, betas]

    def forward(self, s0: Tensor, s1: Tensor, weights: Any, betas: Tensor) -> Any:
        states = [p(s) for p, s in zip(self.preprocess, (s0, s1), strict=True)]
        rows = iter(zip(weights, betas, strict=True))
        for i, sources in enumerate(self.sources):
            terms = []
            for j in sources:
                row, beta = next(rows)
                mixed = self.edges[f"{i}<-{j}"](states[j], row)
                terms.append(beta * mixed if self.weighted else mixed)
            states.append(self.sum(terms))
        return self.out(states[2:])


class RandomEdge(nn.Module):
    """Up to eight candidates, some of which no operator computes, in one of the ways in which people mix them."""

    def __init__(self, draw: random.Random, width: int, stride: int, parts: int) -> None:
        super().__init__()
        self.parts, self.rest = parts, nn.MaxPool2d(2, 2) if stride == 2 else nn.Identity()
        self.ops = nn.ModuleList(_candidates(draw, width // parts, stride))
        if draw.random() < 0.15 and len(self.ops) > 1:
            self.ops[draw.randrange(len(self.ops))] = None  # type: ignore[assignment]
        self.alpha = nn.Parameter(torch.randn(len(self.ops))) if draw.random() < 0.2 else None
        self.mix = draw.choice([_weighted, _weighted, _products, _stacked_products, _sampled, _skipping])
        self.drop = draw.random() < 0.15

    def forward(self, x: Tensor, weights: Any) -> Tensor:
        if self.alpha is not None:
            weights = torch.softmax(self.alpha, 0)
        part = x.shape[1] // self.parts
        pairs = [(w, op) for w, op in zip(weights, self.ops) if op is not None]  # noqa: B905 # fewer candidates
        if not pairs:
            pairs = [(1.0, self.ops[-1])]
        out = self.mix(x[:, :part] if self.parts > 1 else x, pairs)
        if self.parts > 1:
            out = torch.cat([out, self.rest(x[:, part:])], 1)
            n, c, h, w = out.shape
            out = out.view(n, self.parts, c // self.parts, h, w).transpose(1, 2).reshape(n, c, h, w)
        if self.drop and self.training:
            out = out / 0.7 * torch.bernoulli(torch.full((out.shape[0], 1, 1, 1), 0.7, dtype=out.dtype))
        return out


Pairs = Sequence[tuple[Any, nn.Module]]


def _weighted(x: Tensor, pairs: Pairs) -> Tensor:
    return sum(w * op(x) for w, op in pairs)  # type: ignore[return-value]


def _products(x: Tensor, pairs: Pairs) -> Tensor:
    out = [op(x) for _, op in pairs]
    total = torch.mul(out[0], pairs[0][0])
    for (w, _), o in zip(pairs[1:], out[1:], strict=True):
        total = torch.add(total, o.mul(w))
    return total


def _stacked_products(x: Tensor, pairs: Pairs) -> Tensor:
    weights = torch.stack([torch.as_tensor(w, dtype=x.dtype) for w, _ in pairs])
    return (weights.view(-1, 1, 1, 1, 1) * torch.stack([op(x) for _, op in pairs])).sum(0)


def _sampled(x: Tensor, pairs: Pairs) -> Tensor:
    """As GDAS: one candidate is computed, the weights of others are 1 - 1."""
    values = _values(pairs)
    best = values.index(max(values))
    hard = [w + 1 - v if i == best else w - v for i, ((w, _), v) in enumerate(zip(pairs, values, strict=True))]
    return sum(hard[i] * op(x) if i == best else hard[i] for i, (_, op) in enumerate(pairs))  # type: ignore[return-value]


def _skipping(x: Tensor, pairs: Pairs) -> Tensor:
    """Of small weights nothing is computed."""
    values = _values(pairs)
    return sum(w * op(x) for (w, op), v in zip(pairs, values, strict=True) if v > max(values) / 3)  # type: ignore[return-value]


def _values(pairs: Pairs) -> list[float]:
    return [float(torch.as_tensor(w).detach()) for w, _ in pairs]


def _candidates(draw: random.Random, width: int, stride: int) -> list[nn.Module]:
    halves: Any = {"stride": stride}
    pool = [*stock.candidates(width, stride)]
    pool += [foreign.FunctionalSep(width, k, stride, affine=a) for k in (3, 5) for a in (False, True)]
    pool += [
        foreign.FunctionalSep(width, 7, stride),
        nn.MaxPool2d(3, stride, 1),
        nn.AvgPool2d(3, stride, 1),
        nn.AvgPool2d(3, stride, 1, count_include_pad=False),
        nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(width)),
        *(foreign.chain(width, **halves, kernel_size=k, padding=k // 2, dilation=1) for k in (3, 5)),
        foreign.chain(width, **halves, dilation=3, padding=3),
        foreign.chain(width, **halves, point_bias=True),
        foreign.chain(width, **halves, bias=True),
        foreign.chain(width, **halves, norm=lambda c: nn.GroupNorm(1, c)),
        foreign.chain(width, **halves, norm=lambda c: nn.BatchNorm2d(c, momentum=None)),
        foreign.chain(width, **halves, norm=lambda c: nn.BatchNorm2d(c, eps=0.1, track_running_stats=False)),
        nn.Sequential(foreign.chain(width, **halves), nn.Dropout(0.2)),
    ]
    return draw.sample(pool, draw.randint(1, 9))


def _preprocess(draw: random.Random, before: int, width: int, scale: int) -> nn.Module:
    if scale == 2:
        return stock.FactorizedReduce(before, width)
    return nn.Identity() if before == width and draw.random() < 0.5 else stock.ReLUConvBN(before, width)


def _loop(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _in_place(terms: list[Tensor]) -> Tensor:
    total: Any = 0
    for term in terms:
        total += term
    return total  # type: ignore[no-any-return]


def _stacked(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0)


def _concatenated(nodes: list[Tensor]) -> Tensor:
    return torch.cat(nodes, 1)


def _last(nodes: list[Tensor]) -> Tensor:
    return nodes[-1].relu() + nodes[0]


def _mean(nodes: list[Tensor]) -> Tensor:
    return sum(nodes) / len(nodes)  # type: ignore[return-value]


def _spoil_modes(draw: random.Random, cell: nn.Module) -> None:
    """Some parameters frozen, some modules in eval mode."""
    if draw.random() < 0.3:
        for p in cell.parameters():
            p.requires_grad_(draw.random() < 0.5)
    if draw.random() < 0.2:
        for m in cell.modules():
            m.train(draw.random() < 0.7)
