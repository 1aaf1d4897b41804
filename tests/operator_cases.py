"""The table of cells that every backend must compute as plain PyTorch does, and the means to compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnas.ops import CANDIDATES, DARTS_CANDIDATES, Edge, Norm, Spec, mixed_cell
from fastnas.ops.functional import edge_spec
from fastnas.ops.spec import decode

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A cell and the sizes it is given."""

    name: str
    spec: Spec
    sizes: tuple[Size, ...]
    batch: int = 2


def edge(
    name: str,
    channels: int = 6,
    size: Size = (7, 6),
    stride: int = 1,
    candidates: Sequence[str] = DARTS_CANDIDATES,
    norm: Norm | None = None,
    batch: int = 2,
) -> Case:
    """A case of one mixed edge."""
    return Case(name, edge_spec(channels, tuple(candidates), stride, norm or Norm()), (size,), batch)


def cell_spec(
    channels: int,
    steps: int = 2,
    reduction: bool = False,
    reduction_prev: bool = False,
    widths: Size = (6, 10),
    candidates: Sequence[str] = DARTS_CANDIDATES,
    norm: Norm | None = None,
) -> Spec:
    """A DARTS cell with its preprocessing."""
    edges = [
        Edge(0, 2, 2 if reduction_prev else 1, ("factorized_reduce" if reduction_prev else "relu_conv_bn",)),
        Edge(1, 3, 1, ("relu_conv_bn",)),
    ]
    for node in range(4, 4 + steps):
        edges += [Edge(j, node, 2 if reduction and j < 4 else 1, tuple(candidates)) for j in range(2, node)]
    norms = sum(kind.norms for e in edges for kind in e.kinds)
    outputs = tuple(range(4, 4 + steps))
    return Spec((*widths, *[channels] * (steps + 2)), 2, tuple(edges), outputs, (norm or Norm(),) * norms)


def trellis_spec(
    channels: int,
    widths: Sequence[int],
    steps: int = 2,
    prev_prev: bool = True,
    ways: Sequence[str] = ("down", "same", "up"),
    candidates: Sequence[str] = DARTS_CANDIDATES,
    norm: Norm | None = None,
) -> Spec:
    """A cell of Auto-DeepLab, run on every way that leads to it with the same weights, the results weighted by β.

    Inputs: prev-prev, then the ways' ends, of the given widths. Edges that leave prev-prev are the same on every way.
    α holds the edges' entries, then β's.
    """
    count = len(ways)
    inputs = prev_prev + count
    graph = [Edge(0, inputs, 1, ("relu_conv_bn",))] if prev_prev else []
    same = prev_prev + ways.index("same") if "same" in ways else None
    for i, way in enumerate(ways):
        source, target = prev_prev + i, inputs + prev_prev + i
        like = same if way == "up" else None
        graph.append(Edge(source, target, 2 if way == "down" else 1, ("resize_conv_bn",), like=like))
    first = [inputs] if prev_prev else []  # state that all ways share
    states = [[inputs + prev_prev + i] for i in range(count)]  # of each way: the preprocessed end, then nodes
    following = inputs + prev_prev + count
    owners: dict[tuple[int, int], int] = {}  # by step and position of the source, the edge that has the parameters
    for step in range(steps):
        shared = following if prev_prev else None
        if prev_prev:
            graph.append(Edge(first[0], following, 1, tuple(candidates)))
            following += 1
        for way in range(count):
            if shared is not None:
                graph.append(Edge(shared, following, 1, ("identity",)))
            for position, source in enumerate(states[way]):
                owner = owners.setdefault((step, position), len(graph))
                shares = None if owner == len(graph) else owner
                graph.append(Edge(source, following, 1, tuple(candidates), shares))
            states[way].append(following)
            following += 1
    outputs = tuple(range(following, following + steps))
    betas: dict[int, int] = {}
    for step in range(steps):
        for way in range(count):
            owner = betas.setdefault(way, len(graph))
            shares = None if owner == len(graph) else owner
            graph.append(Edge(states[way][step + 1], outputs[step], 1, ("skip_connect",), shares))
    norms = sum(kind.norms for e in graph for kind in e.kinds)
    states_channels = (*widths, *[channels] * (outputs[-1] + 1 - inputs))
    return Spec(states_channels, inputs, tuple(graph), outputs, (norm or Norm(),) * norms)


def resize_spec(way: str, norm: Norm | None = None) -> Spec:
    """One resampled state beside one of the size that it takes."""
    up = Edge(0, 2, 1, ("resize_conv_bn",), like=1)
    down = Edge(0, 2, 2, ("resize_conv_bn",))
    same = Edge(0, 2, 1, ("resize_conv_bn",))
    edges = ({"up": up, "down": down, "same": same}[way], Edge(1, 2, 1, ("relu_conv_bn",)))
    return Spec((10, 6, 7), 2, edges, (2,), (norm or Norm(),) * 2)


def resize_to(size: Size, target: Size) -> Case:
    """One state resampled, normed with running statistics, to the size of an input that only goes on into a sum."""
    edges = (Edge(0, 2, 1, ("resize_conv_bn",), like=1), Edge(1, 2, 1, ("identity",)))
    return Case("resize-to", Spec((6, 4, 4), 2, edges, (2,), (Norm(batch=False),)), (size, target))


def _resized_twice() -> Spec:
    """A state that two edges resample: both add to its gradient."""
    edges = (Edge(0, 2, 1, ("resize_conv_bn",), like=1), Edge(0, 3, 2, ("resize_conv_bn",)))
    return Spec((6, 5, 4, 7), 2, edges, (2, 3), (Norm(),) * 2)


def _given_sum() -> Spec:
    """An edge whose target starts from a given state, which nothing else reads."""
    edges = (Edge(0, 2, 1, ("max_pool_3x3", "sep_conv_3x3", "skip_connect")), Edge(1, 2, 1, ("identity",)))
    return Spec((6,) * 3, 2, edges, (2,), (Norm(),) * 3)


def _shared_edges() -> Spec:
    """Three edges of the same parameters and entries of α, two of them into one state."""
    names = ("sep_conv_3x3", "max_pool_3x3", "dil_conv_5x5", "skip_connect")
    edges = (
        Edge(0, 2, 1, names),
        Edge(1, 2, 1, names, shares=0),
        Edge(2, 3, 1, names, shares=1),
        Edge(2, 4, 1, ("identity",)),
        Edge(3, 4, 1, ("identity",)),
        Edge(3, 4, 1, ("skip_connect", "none")),
    )
    norms = (Norm(affine=True), Norm(affine=True), Norm(affine=True), Norm(affine=True)) * 3
    return Spec((6,) * 5, 2, edges, (4,), norms)


def _mixed_norms() -> Spec:
    spec = edge_spec(6, DARTS_CANDIDATES, 1, Norm())
    kinds = (Norm(), Norm(1e-3, affine=True), Norm(batch=False), Norm(0.1, affine=True, batch=False))
    return Spec(spec.channels, 1, spec.edges, spec.outputs, tuple(kinds[i % 4] for i in range(len(spec.norms))))


def _pools_apart() -> Spec:
    """Pools that are normalised by constants, as those that have no batch norm are, beside batches' statistics."""
    names = ("max_pool_3x3", "sep_conv_3x3", "avg_pool_3x3", "dws_conv_5x5")
    edges = (Edge(0, 1, 1, names), Edge(0, 2, 1, names), Edge(1, 2, 1, names))
    norms = (Norm(0.0, batch=False), Norm(), Norm(), Norm(0.0, batch=False), Norm()) * 3
    return Spec((6,) * 3, 1, edges, (2,), norms)


def _six_inputs() -> Spec:
    edges = tuple(Edge(i, 6, 1, ("max_pool_3x3", "skip_connect")) for i in range(6))
    return Spec((4,) * 7, 6, edges, (6,), (Norm(),) * 6)


def _uneven_edges() -> Spec:
    """Two inputs of different size, three nodes, edges that differ in candidates, an inner state that is no output."""
    edges = (
        Edge(0, 2, 2, ("max_pool_3x3", "sep_conv_3x3")),
        Edge(1, 2, 1, ("skip_connect", "none", "dil_conv_5x5", "skip_connect")),
        Edge(2, 3, 1, ("avg_pool_3x3", "avg_pool_3x3")),
        Edge(1, 3, 1, ("sep_conv_5x5",)),
        Edge(2, 4, 1, tuple(reversed(DARTS_CANDIDATES))),
        Edge(3, 4, 1, ("skip_connect",)),
    )
    norms = sum(kind.norms for e in edges for kind in e.kinds)
    return Spec((6,) * 5, 2, edges, (4, 3), (Norm(),) * norms)


SIZES: tuple[Size, ...] = ((1, 1), (1, 2), (3, 1), (2, 2), (3, 5), (8, 8), (7, 14), (17, 9))
CASES: list[Case] = [
    *(edge(f"one-{name}-s{s}", candidates=[name], stride=s) for name in CANDIDATES for s in (1, 2)),
    *(edge(f"size-{h}x{w}-s{s}", size=(h, w), stride=s, batch=3) for h, w in SIZES for s in (1, 2)),
    *(edge(f"channels-{c}-s{s}", channels=c, stride=s) for c in (2, 8, 12, 16, 18, 34, 48) for s in (1, 2)),
    edge("channels-1", channels=1),
    edge("channels-65", channels=65, size=(4, 4)),
    edge("one-image", batch=1),
    edge("many-images", size=(2, 3), batch=9),
    edge("affine", norm=Norm(affine=True)),
    edge("affine-s2", norm=Norm(affine=True), stride=2),
    edge("eval", norm=Norm(batch=False)),
    edge("eval-affine-s2", norm=Norm(affine=True, batch=False), stride=2),
    edge("eval-one-value", norm=Norm(batch=False), size=(1, 1), batch=1),
    edge("eps", norm=Norm(eps=0.3)),
    edge("order", candidates=tuple(reversed(DARTS_CANDIDATES))),
    edge("repeated", candidates=("sep_conv_5x5", "max_pool_3x3", "sep_conv_5x5", "max_pool_3x3", "skip_connect")),
    edge("only-none", candidates=("none",), stride=2),
    Case("mixed-norms", _mixed_norms(), ((5, 5),)),
    Case("pools-apart", _pools_apart(), ((5, 6),)),
    Case("uneven-edges", _uneven_edges(), ((9, 12), (5, 6))),
    Case("six-inputs", _six_inputs(), ((4, 5),) * 6),
    Case("cell", cell_spec(6), ((6, 5), (6, 5))),
    Case("cell-after-reduction", cell_spec(6, reduction_prev=True), ((9, 8), (5, 4))),
    Case("cell-reduction", cell_spec(6, steps=4, reduction=True), ((7, 8), (7, 8))),
    Case("cell-affine", cell_spec(16, norm=Norm(affine=True)), ((4, 4), (4, 4))),
    *(
        Case(f"resize-{way}-{h}x{w}-to-{height}x{width}", resize_spec(way), ((h, w), (height, width)))
        for way, h, w, height, width in (
            *(("up", 5, 4, 9, 7), ("up", 4, 5, 7, 10), ("up", 1, 3, 2, 5), ("up", 3, 1, 4, 2), ("up", 2, 2, 9, 17)),
            *(
                ("up", 9, 7, 5, 3),
                ("up", 6, 5, 1, 1),
                ("down", 9, 8, 5, 4),
                ("down", 1, 2, 1, 1),
                ("down", 17, 3, 9, 2),
            ),
            ("same", 4, 6, 4, 6),
        )
    ),
    Case("resized-twice", _resized_twice(), ((5, 4), (3, 2))),
    Case("given-sum", _given_sum(), ((4, 5), (4, 5))),
    Case("shared-edges", _shared_edges(), ((5, 6), (5, 6))),
    Case("trellis", trellis_spec(6, (8, 6, 10, 12)), ((7, 6), (13, 12), (7, 6), (4, 3))),
    Case("trellis-first", trellis_spec(6, (5,), prev_prev=False, ways=("down",)), ((8, 5),)),
    Case("trellis-two-ways", trellis_spec(8, (8, 10, 12), 3, ways=("same", "up")), ((6, 9), (6, 9), (3, 5))),
    Case(
        "trellis-affine",
        trellis_spec(16, (8, 6, 12), norm=Norm(affine=True), ways=("down", "same")),
        ((4, 4), (7, 8), (4, 4)),
    ),
    Case("trellis-eval", trellis_spec(4, (8, 6, 10, 4), norm=Norm(batch=False)), ((5, 4), (9, 8), (5, 4), (3, 2))),
    Case("cell-eval", cell_spec(4, reduction=True, norm=Norm(batch=False)), ((4, 4), (4, 4))),
]
BY_NAME = {case.name: case for case in CASES}


@dataclass
class Problem:
    """A case with its tensors, in float64."""

    spec: Spec
    inputs: list[Tensor]
    alpha: Tensor
    params: list[Tensor]
    running: list[Tensor]
    grad: Tensor

    def to(self, dtype: torch.dtype) -> Problem:
        return Problem(
            self.spec,
            [t.to(dtype) for t in self.inputs],
            self.alpha.to(dtype),
            [t.to(dtype) for t in self.params],
            [t.to(dtype) for t in self.running],
            self.grad.to(dtype),
        )


def problem(case: Case, seed: int = 0) -> Problem:
    """Random tensors for a case, each a float32 number, so that both precisions start from the same values."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    spec = case.spec
    inputs = [normal(case.batch, spec.channels[i], *size) for i, size in enumerate(case.sizes)]
    params = [
        normal(*shape) / max(1, shape[-1] * (shape[1] if len(shape) > 1 else 1)) ** 0.5
        for shape in spec.parameter_shapes
    ]
    params = [p.float().double() for p in params]
    height, width = spec.sizes(list(case.sizes))[spec.outputs[0]]
    return Problem(
        spec,
        inputs,
        torch.rand(spec.alphas, generator=generator).double(),
        params,
        [normal(*shape).abs() + 0.5 for shape in spec.running_shapes],
        normal(case.batch, sum(spec.channels[i] for i in spec.outputs), height, width),
    )


Cell = Callable[..., tuple[Tensor, Tensor]]


def run(cell: Cell, p: Problem) -> list[Tensor]:
    """Output, statistics and all gradients: of inputs, α and parameters, zeros where autograd gives none."""
    leaves = [
        t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (*p.inputs, p.alpha, *p.params)
    ]
    n = len(p.inputs)
    out, statistics = cell(p.spec, leaves[:n], leaves[n], leaves[n + 1 :], p.running)
    if not out.requires_grad:
        return [out, statistics, *(torch.zeros_like(t) for t in leaves)]
    grads = torch.autograd.grad(out, leaves, p.grad, allow_unused=True)
    return [
        out.detach(),
        statistics,
        *(torch.zeros_like(t) if g is None else g for t, g in zip(leaves, grads, strict=True)),
    ]


def fused(backend: str, memory: str) -> Cell:
    """`mixed_cell` with a backend and a memory mode."""

    def cell(
        spec: Spec, inputs: list[Tensor], alpha: Tensor, params: list[Tensor], running: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        return mixed_cell(spec, inputs, alpha, params, running, memory, backend)

    return cell


def names(p: Problem) -> list[str]:
    """What the tensors of `run` are."""
    inputs, params = (
        [f"{kind} {i}" for i in range(n)] for kind, n in (("∂input", len(p.inputs)), ("∂param", len(p.params)))
    )
    return ["out", "statistics", *inputs, "∂α", *params]


def error(actual: Tensor, exact: Tensor) -> float:
    """Largest absolute error."""
    if exact.numel() == 0:
        return 0.0
    return (actual.double() - exact).abs().max().item()


assert all(decode(case.spec.text) == case.spec for case in CASES)
