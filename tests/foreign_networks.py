"""Whole supernets as different people write them, small; each is called with a batch of images alone.

They import nothing from fastnas and share only the candidates of `benchmarks/stock.py`.
"""

from __future__ import annotations

import random
from typing import Any

import foreign
import stock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

C, CLASSES = 4, 5


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pooling, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pooling(x).view(x.size(0), -1))
        return logits


def stem(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


class Darts(nn.Module):
    """α are plain tensors, outside the state dict, as in the paper's own code; second order copies the model."""

    def __init__(self, layers: int = 3, nodes: int = 2) -> None:
        super().__init__()
        self.how = (layers, nodes)
        self.stem, self.cells = stem(3 * C), nn.ModuleList()
        before, previous, width, reduced = 3 * C, 3 * C, C, False
        for layer in range(layers):
            reduction = layer == layers // 2
            width *= 2 if reduction else 1
            self.cells.append(stock.Cell(before, previous, width, reduction, reduced, nodes=nodes))
            before, previous, reduced = previous, nodes * width, reduction
        self.head = Head(previous)
        edges = sum(2 + i for i in range(nodes))
        self.alphas = [(1e-3 * torch.randn(edges, 8)).requires_grad_() for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            weights = F.softmax(self.alphas[cell.reduction].to(x.dtype), dim=-1)
            s0, s1 = s1, cell(s0, s1, weights)
        out: Tensor = self.head(s1)
        return out

    def new(self) -> Darts:
        """One more, with the same α, as architects make it for an unrolled step."""
        model = type(self)(*self.how).to(self.stem[0].weight.dtype)
        for theirs, ours in zip(model.alphas, self.alphas, strict=True):
            theirs.data.copy_(ours.data)
        return model


class PCDarts(Darts):
    """Partial channels; edges have weights of their own, softmaxed node by node."""

    def __init__(self) -> None:
        super().__init__(layers=0)
        width, self.cells = 4 * C, nn.ModuleList()
        for layer in range(3):
            before, previous = (3 * C, 3 * C, 2 * width)[layer], (3 * C, 2 * width, 2 * width)[layer]
            self.cells.append(foreign.PCCell(before, previous, width, reduction=layer == 1))
            if layer == 2:
                self.cells[2].preprocess0 = stock.FactorizedReduce(before, width)
        self.head = Head(2 * width)
        self.betas = [(1e-3 * torch.randn(5)).requires_grad_() for _ in range(2)]

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for i, cell in enumerate(self.cells):
            weights, betas = F.softmax(self.alphas[i == 1], dim=-1), self.betas[i == 1]
            betas = torch.cat([F.softmax(betas[:2], dim=-1), F.softmax(betas[2:], dim=-1)])
            s0, s1 = s1, cell(s0, s1, weights.to(x.dtype), betas.to(x.dtype))
        out: Tensor = self.head(s1)
        return out


class Trellis(nn.Module):
    """Two scales, two layers; cells return a list, one result for each path that leads to them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem(C)
        self.cells = nn.ModuleList(
            [
                foreign.TrellisCell(C, prev_prev=0, down=0, same=C, up=0),
                foreign.TrellisCell(2 * C, prev_prev=0, down=C, same=0, up=0),
                foreign.TrellisCell(C, prev_prev=C, down=0, same=2 * C, up=4 * C),
                foreign.TrellisCell(2 * C, prev_prev=0, down=2 * C, same=4 * C, up=0),
            ]
        )
        self.alphas = nn.Parameter(1e-3 * torch.randn(5, 8))
        self.betas = nn.Parameter(1e-3 * torch.randn(2, 2))
        self.heads = nn.ModuleList([Head(2 * C), Head(4 * C)])

    def forward(self, x: Tensor) -> Tensor:
        alphas, betas = F.softmax(self.alphas, dim=-1), F.softmax(self.betas, dim=-1)
        s4 = self.stem(x)
        (level4,) = self.cells[0](None, None, s4, None, alphas)
        (level8,) = self.cells[1](None, s4, None, None, alphas)
        a, b = self.cells[2](s4, None, level4, level8, alphas)
        c, d = self.cells[3](None, level4, level8, None, alphas)
        four, eight = betas[0][0] * a + betas[0][1] * b, betas[1][0] * c + betas[1][1] * d
        out: Tensor = self.heads[0](four) + self.heads[1](eight)
        return out


class NamedEdges(nn.Module):
    """Cells have no `forward`: the network calls `forward_mixed`, or `forward_sampled` with an index of a candidate.

    Edges lie in a dictionary, by name. Returns features and logits.
    """

    def __init__(self, sampled: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.stem, self.sampled = stem(C), sampled
        self.cells = nn.ModuleList([NamedEdgesCell(C, bias) for _ in range(2)])
        self.arch_parameters = nn.Parameter(1e-3 * torch.randn(6, 8))
        self.head = Head(C)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.stem(x)
        for cell in self.cells:
            if self.sampled:
                probs = F.softmax(self.arch_parameters + torch.rand(6, 8, dtype=x.dtype), dim=-1)
                index = probs.max(-1, keepdim=True)[1]
                hard = torch.zeros_like(probs).scatter_(-1, index, 1.0) - probs.detach() + probs
                feature = cell.forward_sampled(feature, hard, index.cpu())
            else:
                feature = cell.forward_mixed(feature, F.softmax(self.arch_parameters, dim=-1))
        return feature, self.head(feature)


class NamedEdgesCell(nn.Module):
    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        names = [f"{i}<-{j}" for i in range(1, 4) for j in range(i)]
        self.edges = nn.ModuleDict({name: nn.ModuleList(stock.candidates(channels, 1)) for name in names})
        self.index = {name: i for i, name in enumerate(sorted(names))}
        if bias:
            for ops in self.edges.values():
                ops[6] = foreign.chain(channels, point_bias=True)

    def forward_mixed(self, x: Tensor, weights: Tensor) -> Tensor:
        nodes = [x]
        for i in range(1, 4):
            terms = []
            for j in range(i):
                name = f"{i}<-{j}"
                row = weights[self.index[name]]
                terms.append(sum(op(nodes[j]) * w for op, w in zip(self.edges[name], row, strict=True)))
            nodes.append(sum(terms))
        return nodes[-1]

    def forward_sampled(self, x: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        nodes = [x]
        for i in range(1, 4):
            terms = []
            for j in range(i):
                name = f"{i}<-{j}"
                row, best = weights[self.index[name]], index[self.index[name]].item()
                ops = enumerate(self.edges[name])
                terms.append(sum(row[k] * op(nodes[j]) if k == best else row[k] for k, op in ops))
            nodes.append(sum(terms))
        return nodes[-1]


class Controller(nn.Module):
    """α are parameters of a module around the network, one tensor a node; the cell's edges are `dag[i][j]`."""

    class Cell(nn.Module):
        def __init__(self, before: int, channels: int) -> None:
            super().__init__()
            self.preproc0, self.preproc1 = (stock.ReLUConvBN(before, channels) for _ in range(2))
            self.dag = nn.ModuleList()
            for i in range(2):
                self.dag.append(nn.ModuleList())
                for _ in range(2 + i):
                    self.dag[i].append(stock.MixedOp(channels, 1))

        def forward(self, s0: Tensor, s1: Tensor, w_dag: list[Tensor]) -> Tensor:
            states = [self.preproc0(s0), self.preproc1(s1)]
            for edges, w_list in zip(self.dag, w_dag, strict=True):
                pairs = enumerate(zip(states, w_list, strict=True))
                states.append(sum(edges[i](s, w) for i, (s, w) in pairs))
            return torch.cat(states[2:], dim=1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = stem(3 * C), Head(2 * C)
            self.cells = nn.ModuleList([Controller.Cell(3 * C, C)])

        def forward(self, x: Tensor, weights_normal: list[Tensor]) -> Tensor:
            s0 = s1 = self.stem(x)
            for cell in self.cells:
                s0, s1 = s1, cell(s0, s1, weights_normal)
            out: Tensor = self.head(s1)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.net = Controller.Net()
        self.alpha_normal = nn.ParameterList([nn.Parameter(1e-3 * torch.randn(i + 2, 8)) for i in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x, [F.softmax(alpha, dim=-1) for alpha in self.alpha_normal])
        return out


class OwnWeights(nn.Module):
    """Edges own their α, share them between cells, choose an input from a list; `none` is last, pools are bare."""

    class Edge(nn.Module):
        def __init__(self, channels: int, source: int, alpha: nn.Parameter) -> None:
            super().__init__()
            self.source, self._alphas = source, [alpha]
            none, maximum, average, *rest = stock.candidates(channels, 1)
            self.op = nn.ModuleList([maximum[0], average[0], *rest, none])

        def forward(self, states: list[Tensor]) -> Tensor:
            weights = F.softmax(self._alphas[0], dim=0)
            return sum(w * op(states[self.source]) for w, op in zip(weights, self.op, strict=True))

    class Cell(nn.Module):
        def __init__(self, before: int, channels: int, alphas: nn.ParameterList) -> None:
            super().__init__()
            self.s0_op, self.s1_op = (stock.ReLUConvBN(before, channels) for _ in range(2))
            given = iter(alphas)
            edges = [[OwnWeights.Edge(channels, j, next(given)) for j in range(2 + i)] for i in range(2)]
            self.dag = nn.ModuleList(nn.ModuleList(node) for node in edges)

        def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
            states = [self.s0_op(s0), self.s1_op(s1)]
            for node in self.dag:
                states.append(sum(edge(states) for edge in node))
            return torch.cat(states[2:], dim=1)

    def __init__(self) -> None:
        super().__init__()
        self.alphas = nn.ParameterList([nn.Parameter(1e-3 * torch.randn(8)) for _ in range(5)])
        self.stem, self.head = stem(2 * C), Head(2 * C)
        self.cells = nn.ModuleList(OwnWeights.Cell(2 * C, C, self.alphas) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        out: Tensor = self.head(s1)
        return out


class Choice(nn.Module):
    """Candidates are children by their own names; a helper sums results of any kind, and looks at what they are."""

    def __init__(self, channels: int = C) -> None:
        super().__init__()
        self.names = []
        for i, op in enumerate(stock.candidates(channels, 1)):
            self.add_module(f"choice{i}", op)
            self.names.append(f"choice{i}")
        self.alpha = nn.Parameter(1e-3 * torch.randn(8))
        self.softmax = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Any:
        return self._sum([getattr(self, name)(x) for name in self.names], self.softmax(self.alpha))

    def _sum(self, items: list[Any], weights: Tensor) -> Any:
        if isinstance(items[0], Tensor):
            total = items[0] * weights[0]
            for item, weight in zip(items[1:], weights[1:], strict=True):
                if type(item) is not type(items[0]):
                    raise TypeError(f"expected {type(items[0])}, found {type(item)}")
                total = total + item * weight
            return total
        return [self._sum(list(parts), weights) for parts in zip(*items, strict=True)]


class ByClass(stock.MixedOp):
    """Drops paths, except those of candidates of one class, which it compares as few people do."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        def scaled(op: nn.Module) -> Tensor:
            out: Tensor = op(x)
            return out if type(op) is nn.Identity else 0.5 * out

        return sum(w * scaled(op) for w, op in zip(weights, self._ops, strict=True))


class Progressive(nn.Module):
    """Every edge has candidates of its own; dropout follows a skip connection, and its rate changes."""

    class Mixed(nn.Module):
        def __init__(self, channels: int, switches: list[int], p: float) -> None:
            super().__init__()
            ops = stock.candidates(channels, 1)
            ops[3] = nn.Sequential(ops[3], nn.Dropout(p))
            self.m_ops = nn.ModuleList(ops[i] for i in switches)

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return sum(w * op(x) for w, op in zip(weights, self.m_ops, strict=True))

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = stem(C), Head(C)
        draw = random.Random(0)
        self.switches = [sorted(draw.sample(range(8), 5)) for _ in range(3)]
        self.edges = nn.ModuleList(Progressive.Mixed(C, s, 0.3) for s in self.switches)
        self.alphas = nn.Parameter(1e-3 * torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for edge, row in zip(self.edges, torch.sigmoid(self.alphas), strict=True):
            h = h + edge(h, row)
        out: Tensor = self.head(h)
        return out


class InvertedResiduals(nn.Module):
    """Not made of candidates that the operator has: expansions, ReLU6, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = stem(C), Head(C)
        self.blocks = nn.ModuleList(
            nn.ModuleList([self._block(k, e) for k in (3, 5) for e in (1, 3)] + [nn.Identity()]) for _ in range(2)
        )
        self.alphas = nn.Parameter(1e-3 * torch.randn(2, 5))

    @staticmethod
    def _block(kernel: int, expansion: int) -> nn.Module:
        width = C * expansion
        return nn.Sequential(
            nn.Conv2d(C, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(inplace=True),
            nn.Conv2d(width, width, kernel, 1, kernel // 2, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(inplace=True),
            nn.Conv2d(width, C, 1, bias=False),
            nn.BatchNorm2d(C),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block, alpha in zip(self.blocks, self.alphas, strict=True):
            weights = F.gumbel_softmax(alpha, tau=5.0)
            h = sum(w * op(h) for w, op in zip(weights, block, strict=True))
        out: Tensor = self.head(h)
        return out
