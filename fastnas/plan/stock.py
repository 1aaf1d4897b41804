"""What the network would take in plain PyTorch, where every candidate of every edge is modules of its own.

An edge is run as such, described on the meta device, once for all edges that are alike; a cell is put together from its
edges. What allocators and libraries take for themselves is not in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from math import prod

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from fastnas.ops import reference
from fastnas.ops.spec import Edge, Norm, Spec
from fastnas.plan.described import floats
from fastnas.plan.engines import FLOAT, Shape, areas, shapes_of, weights
from fastnas.plan.ledger import Ledger

_SUM, _WEIGHTED = ("identity",), ("skip_connect",)


class StockEngine:
    """Saves for every edge what its modules do, and every state that a module saves. Knows no memory modes."""

    def forward(self, ledger: Ledger, spec: Spec, inputs: Sequence[Tensor], memory: str) -> tuple[Tensor, list[Tensor]]:
        shapes = shapes_of(inputs)
        sizes = spec.sizes(areas(shapes))
        channels = sum(spec.channels[i] for i in spec.outputs)
        out = floats(len(inputs[0]), channels, *sizes[spec.outputs[0]])
        saved = floats(_saved(spec, shapes) // FLOAT)
        ledger.call(max(edge.forward for edge, _ in _edges(spec, shapes)))
        return out, [saved]

    def backward(self, ledger: Ledger, spec: Spec, grad: Tensor, shapes: Sequence[Shape], memory: str) -> list[Tensor]:
        of_inputs = [floats(*shape) for shape in shapes]
        flat = floats(weights(spec) + spec.alphas)
        ledger.call(max(edge.backward for edge, _ in _edges(spec, tuple(shapes))))
        return [*of_inputs, flat]


class _Edge:
    """An edge by itself: what it saves besides its source, and what each direction takes besides that."""

    def __init__(self, saved: int, forward: int, backward: int) -> None:
        self.saved, self.forward, self.backward = saved, forward, backward


def _saved(spec: Spec, shapes: tuple[Shape, ...]) -> int:
    sizes = spec.sizes(areas(shapes))
    read = {edge.source for edge in spec.edges if edge.candidates not in (_SUM, _WEIGHTED)} - set(range(spec.inputs))
    # A way's nodes are concatenated, and the result is saved where β weighs it.
    weighed = [edge.source for edge in spec.edges if edge.candidates == _WEIGHTED]
    states = sum(spec.channels[state] * prod(sizes[state]) for state in [*read, *weighed])
    return shapes[0][0] * FLOAT * states + sum(times * edge.saved for edge, times in _edges(spec, shapes))


@cache
def _edges(spec: Spec, shapes: tuple[Shape, ...]) -> list[tuple[_Edge, int]]:
    """Each edge that computes something, and how often stock code runs it: what only goes on into sums, for each."""
    sizes = spec.sizes(areas(shapes))
    sums = Counter(edge.source for edge in spec.edges if edge.candidates == _SUM)
    return [
        (
            _edge(
                edge.candidates,
                edge.stride,
                (spec.channels[edge.source], spec.channels[edge.target]),
                shapes[0][0],
                sizes[edge.source],
                sizes[edge.target],
                edge.like is not None,
            ),
            max(1, sums[edge.target]),
        )
        for edge in spec.edges
        if edge.candidates not in (_SUM, _WEIGHTED)
    ]


@cache
def _edge(
    candidates: tuple[str, ...],
    stride: int,
    channels: tuple[int, int],
    images: int,
    source: tuple[int, int],
    target: tuple[int, int],
    like: bool,
) -> _Edge:
    """Runs the edge in the reference; `like`: it takes its size from another state."""
    inputs = 2 if like else 1
    edge = Edge(0, inputs, stride, candidates, like=1 if like else None)
    norms = sum(kind.norms for kind in edge.kinds)
    spec = Spec((channels[0], *[channels[1]] * inputs), inputs, (edge,), (inputs,), (Norm(),) * norms)
    x = torch.empty(images, channels[0], *source, device="meta", requires_grad=True)
    given = [x, torch.empty(images, channels[1], *target, device="meta")][:inputs]
    parameters = list(_leaves(spec.parameter_shapes))
    alpha = torch.empty(spec.alphas, device="meta", requires_grad=True)
    ledger = Ledger()
    with _disable_current_modes(), torch.enable_grad(), ledger:
        out = reference.cell(spec, given, alpha, parameters, ())[0]
        saved, forward = ledger.tensors, ledger.peak
        grad, loss = floats(*out.shape), out.sum()
        # A gradient that `backward` is given would import PyTorch's compiler.
        out.register_hook(lambda _: grad)  # type: ignore[no-untyped-call]
        ledger.peak = 0
        loss.backward()  # type: ignore[no-untyped-call]
    before = saved + grad.nbytes + 2 * loss.nbytes  # with the loss's own gradient
    return _Edge(saved - out.nbytes, forward - saved, max(0, ledger.peak - before))


def _leaves(shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    for shape in shapes:
        yield torch.empty(shape, device="meta", requires_grad=True)
