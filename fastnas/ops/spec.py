"""What a fused cell computes, as an immutable value that every backend reads.

A cell is a directed acyclic graph of *states*. States 0 … inputs-1 are given; every other state is the sum of the edges
that enter it. An edge applies its candidates to its source and adds them up, weighted by α. The cell's result is the
concatenation of its output states. One edge alone, one node and a whole cell with its preprocessing are all such
graphs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fastnas.ops.candidates import PREPROCESS, Candidate, Depthwise, Reduce, candidate


@dataclass(frozen=True)
class Norm:
    """A batch norm: `batch` says that it normalises with the batch's statistics rather than with running ones."""

    eps: float = 1e-5
    affine: bool = False
    batch: bool = True


@dataclass(frozen=True)
class Edge:
    """An edge from state `source` to state `target`; `stride` is 1 or 2.

    An edge of candidate operations has one entry of α for each. An edge that is one preprocessing operation has none.

    Attributes:
        shares: number of an earlier edge of the same candidates, stride and channels, whose parameters and entries of α
            it takes for its own; each of the two normalises by its own statistics. None for an edge with its own.
        like: state whose size a resampling edge's target has; without it, `stride` says the size as for other edges.
    """

    source: int
    target: int
    stride: int
    candidates: tuple[str, ...]
    shares: int | None = None
    like: int | None = None

    @property
    def searched(self) -> bool:
        """Whether α weighs its candidates."""
        return not any(name in PREPROCESS for name in self.candidates)

    @property
    def kinds(self) -> tuple[Candidate, ...]:
        """Descriptions of its candidates, at its stride."""
        return tuple(candidate(name, self.stride) for name in self.candidates)


@dataclass(frozen=True)
class Spec:
    """A cell.

    Attributes:
        channels: of every state, inputs first.
        inputs: how many states are given.
        edges: in any order that lists an edge before the edges that leave its target.
        outputs: the states to concatenate, none of them an input.
        norms: one for each batch norm, edge by edge, candidate by candidate, stage by stage.

    Parameters come in the same order, edges that share another's having none: for each stage its depthwise weight
    (C, 1, K, K), if it has one, its 1×1 weight (C_out, C_in, 1, 1) — a factorised reduce has two, of C_out/2 rows
    each — and, where the norm is affine, γ and β (C_out).

    Derived from these:
        alphas: how many entries α has, over all edges.
        first_alpha, first_parameter: of every edge, where its entries of α and its parameters start.
        inner_states: states that a backward reads, and that are neither given nor returned. A sum that only goes
            on into other sums is not read.
        unread_inputs: given states whose values no backward reads, as they only go on into sums.
        reads_outputs: whether an output state has edges that leave it, so that a backward may read its value.
        stage_states: the state that each stage before the last of a candidate leads to.
        norm_states: the state that every norm's edge leads to.
        norm_channels: channels of every norm.
        parameter_shapes: shapes of all parameters, in order.
        running_shapes: shapes of the running means and variances that the cell reads, in order.
        text: the cell as text, for an operator's schema; `decode` reads it.
    """

    channels: tuple[int, ...]
    inputs: int
    edges: tuple[Edge, ...]
    outputs: tuple[int, ...]
    norms: tuple[Norm, ...]

    alphas: int = field(init=False, repr=False, compare=False)
    first_alpha: list[int] = field(init=False, repr=False, compare=False)
    first_parameter: list[int] = field(init=False, repr=False, compare=False)
    inner_states: list[int] = field(init=False, repr=False, compare=False)
    unread_inputs: frozenset[int] = field(init=False, repr=False, compare=False)
    reads_outputs: bool = field(init=False, repr=False, compare=False)
    stage_states: list[int] = field(init=False, repr=False, compare=False)
    norm_states: list[int] = field(init=False, repr=False, compare=False)
    norm_channels: list[int] = field(init=False, repr=False, compare=False)
    parameter_shapes: list[tuple[int, ...]] = field(init=False, repr=False, compare=False)
    running_shapes: list[tuple[int, ...]] = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _validate_edges(self)
        states = [edge.target for edge in self.edges for kind in edge.kinds for _ in range(kind.norms)]
        channels = [self.channels[state] for state in states]
        if len(self.norms) != len(channels):
            raise ValueError(f"the cell has {len(channels)} batch norms, got {len(self.norms)} descriptions")
        norms = list(zip(channels, self.norms, strict=True))
        given, unread = set(range(self.inputs)), _unread_states(self)
        derived = {
            **_places(self),
            "inner_states": [s for s in range(len(self.channels)) if s not in {*given, *unread, *self.outputs}],
            "unread_inputs": frozenset(given & unread),
            "reads_outputs": any(edge.source in self.outputs for edge in self.edges),
            "stage_states": [edge.target for edge in self.edges for kind in edge.kinds for _ in kind.stages[:-1]],
            "norm_states": states,
            "norm_channels": channels,
            "running_shapes": [(c,) for c, norm in norms if not norm.batch for _ in range(2)],
            "text": _encode(self),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def sizes(self, inputs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Height and width of every state, from those of the inputs.

        Raises:
            ValueError: edges of different size enter one state, or outputs differ in size.
        """
        sizes: dict[int, tuple[int, int]] = dict(enumerate(inputs))
        for edge in self.edges:
            height, width = sizes[edge.source if edge.like is None else edge.like]
            size = ((height + 1) // 2, (width + 1) // 2) if edge.stride == 2 else (height, width)
            if sizes.setdefault(edge.target, size) != size:
                raise ValueError(
                    f"edges into state {edge.target} have sizes {sizes[edge.target]} and {size}; they must agree"
                )
        if any(sizes[state] != sizes[self.outputs[0]] for state in self.outputs):
            raise ValueError(f"output states differ in size: {[sizes[state] for state in self.outputs]}")
        return [sizes[state] for state in range(len(self.channels))]

    def walk(self) -> Iterator[tuple[Edge, int, Candidate]]:
        """Every candidate with its edge and its entry of α (-1 where none weighs it)."""
        for edge, first in zip(self.edges, self.first_alpha, strict=True):
            for position, kind in enumerate(edge.kinds):
                yield edge, first + position if edge.searched else -1, kind

    def norm_sizes(self, inputs: Sequence[tuple[int, int]]) -> list[int]:
        """Values per image that every norm normalises in each channel."""
        areas = [height * width for height, width in self.sizes(inputs)]
        return [areas[state] for state in self.norm_states]


def _encode(spec: Spec) -> str:
    graph = {
        "channels": spec.channels,
        "inputs": spec.inputs,
        "edges": [vars(edge) for edge in spec.edges],
        "outputs": spec.outputs,
        "norms": [vars(norm) for norm in spec.norms],
    }
    return json.dumps(graph, separators=(",", ":"))


@lru_cache(maxsize=1024)
def decode(text: str) -> Spec:
    """The cell that `Spec.text` holds."""
    data = json.loads(text)
    return Spec(
        channels=tuple(data["channels"]),
        inputs=data["inputs"],
        edges=tuple(Edge(**{**e, "candidates": tuple(e["candidates"])}) for e in data["edges"]),
        outputs=tuple(data["outputs"]),
        norms=tuple(Norm(**norm) for norm in data["norms"]),
    )


def _places(spec: Spec) -> dict[str, Any]:
    """Where edges have their entries of α and their parameters, and how many and of what shapes these are."""
    first_alpha: list[int] = []
    first_parameter: list[int] = []
    shapes: list[tuple[int, ...]] = []
    alphas, norms = 0, iter(spec.norms)
    for edge in spec.edges:
        own = _edge_shapes(spec, edge, norms)
        if edge.shares is None:
            first_alpha.append(alphas)
            first_parameter.append(len(shapes))
            shapes += own
            alphas += len(edge.candidates) if edge.searched else 0
            continue
        first = first_parameter[edge.shares]
        if shapes[first : first + len(own)] != own:
            raise ValueError(
                f"edge {edge.source} → {edge.target} cannot share parameters of {shapes[first : first + len(own)]}, "
                f"it takes {own}"
            )
        first_alpha.append(first_alpha[edge.shares])
        first_parameter.append(first)
    return {
        "alphas": alphas,
        "first_alpha": first_alpha,
        "first_parameter": first_parameter,
        "parameter_shapes": shapes,
    }


def _edge_shapes(spec: Spec, edge: Edge, norms: Iterator[Norm]) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for kind in edge.kinds:
        before, after = spec.channels[edge.source], spec.channels[edge.target]
        for stage in kind.stages:
            if isinstance(stage, Depthwise):
                shapes.append((before, 1, stage.kernel, stage.kernel))
            shapes += [(after // 2, before, 1, 1)] * 2 if isinstance(stage, Reduce) else [(after, before, 1, 1)]
            shapes += [(after,)] * 2 if next(norms).affine else []
            before = after
        if kind.pool and next(norms).affine:
            shapes += [(after,)] * 2
    return shapes


def _unread_states(spec: Spec) -> set[int]:
    """States that only go on into sums, unweighted: their values play no part in any derivative."""
    read = {e.source for e in spec.edges if e.candidates != ("identity",)}
    return {e.source for e in spec.edges} - read


def _validate_edges(spec: Spec) -> None:
    known, closed = set(range(spec.inputs)), set()
    for i, edge in enumerate(spec.edges):
        late = edge.source not in known or edge.target in closed or edge.target <= edge.source
        if late or not spec.inputs <= edge.target < len(spec.channels):
            raise ValueError(
                f"edge {edge.source} → {edge.target} is out of order: an edge comes after all edges into its source, "
                "and leads to a state after it"
            )
        if edge.like is not None and edge.like not in known:
            raise ValueError(f"edge {edge.source} → {edge.target} is like state {edge.like}, which comes later")
        known.add(edge.target)
        closed.add(edge.source)
        _validate_edge(spec, edge)
        if edge.shares is not None:
            _validate_sharing(spec, i)
    missing = set(range(len(spec.channels))) - known
    if missing:
        raise ValueError(f"no edge leads to state {min(missing)}")
    if not spec.outputs or not set(spec.outputs) <= known - set(range(spec.inputs)):
        raise ValueError(f"outputs must be states that edges lead to, got {spec.outputs}")


def _validate_edge(spec: Spec, edge: Edge) -> None:
    if edge.stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, got {edge.stride}")
    before, after = spec.channels[edge.source], spec.channels[edge.target]
    if edge.searched and before != after:
        raise ValueError(
            f"candidates keep the channels, but edge {edge.source} → {edge.target} has {before} and {after}"
        )
    if edge.candidates == ("identity",) and (before != after or edge.stride != 1):
        raise ValueError(f"an identity keeps channels and size, got {before} to {after} with stride {edge.stride}")
    if edge.like is not None and edge.candidates != ("resize_conv_bn",):
        raise ValueError(f"only resize_conv_bn takes the size of another state, got {edge.candidates}")
    if edge.like is not None and edge.stride != 1:
        raise ValueError(f"an edge takes its size from a stride or from a state, got stride {edge.stride} and both")
    if not edge.searched and len(edge.candidates) != 1:
        raise ValueError(f"a preprocessing operation is an edge's only one, got {edge.candidates}")
    reduces = any(isinstance(stage, Reduce) for kind in edge.kinds for stage in kind.stages)
    if reduces and after % 2:
        raise ValueError(f"a factorised reduce needs an even number of output channels, got {after}")
    if reduces and edge.stride != 2:
        raise ValueError(f"a factorised reduce has stride 2, got {edge.stride}")
    if "relu_conv_bn" in edge.candidates and edge.stride != 1:
        raise ValueError(f"relu_conv_bn has stride 1, got {edge.stride}")


def _validate_sharing(spec: Spec, i: int) -> None:
    edge, shares = spec.edges[i], spec.edges[i].shares or 0
    if not 0 <= shares < i:
        raise ValueError(f"edge {i} can share the parameters of an edge before it, got {shares}")
    other = spec.edges[shares]
    ours, theirs = ((e.candidates, e.stride, spec.channels[e.source], spec.channels[e.target]) for e in (edge, other))
    if ours != theirs:
        raise ValueError(f"edges that share parameters must be alike, got {ours} and {theirs}")
