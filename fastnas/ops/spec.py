"""What a fused cell computes, as an immutable value that every backend reads.

A cell is a directed acyclic graph of *states*. States 0 … inputs-1 are given; every other state is the sum of the edges
that enter it. An edge applies its candidates to its source and adds them up, weighted by α. The cell's result is the
concatenation of its output states. One edge alone, one node and a whole cell with its preprocessing are all such
graphs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

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
    """

    source: int
    target: int
    stride: int
    candidates: tuple[str, ...]

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

    Parameters come in the same order: for each stage its depthwise weight (C, 1, K, K), if it has one, its 1×1 weight
    (C_out, C_in, 1, 1) — a factorised reduce has two, of C_out/2 rows each — and, where the norm is affine, γ and β
    (C_out).

    Derived from these:
        alphas: how many entries α has, over all edges.
        inner_states: states that are neither given nor returned.
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
    inner_states: list[int] = field(init=False, repr=False, compare=False)
    stage_states: list[int] = field(init=False, repr=False, compare=False)
    norm_states: list[int] = field(init=False, repr=False, compare=False)
    norm_channels: list[int] = field(init=False, repr=False, compare=False)
    parameter_shapes: list[tuple[int, ...]] = field(init=False, repr=False, compare=False)
    running_shapes: list[tuple[int, ...]] = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _validate_edges(self)
        states = [edge.target for edge, _, kind in self.walk() for _ in range(kind.norms)]
        channels = [self.channels[state] for state in states]
        if len(self.norms) != len(channels):
            raise ValueError(f"the cell has {len(channels)} batch norms, got {len(self.norms)} descriptions")
        norms = list(zip(channels, self.norms, strict=True))
        derived = {
            "alphas": sum(len(edge.candidates) for edge in self.edges if edge.searched),
            "inner_states": [s for s in range(self.inputs, len(self.channels)) if s not in self.outputs],
            "stage_states": [edge.target for edge, _, kind in self.walk() for _ in kind.stages[:-1]],
            "norm_states": states,
            "norm_channels": channels,
            "parameter_shapes": _parameter_shapes(self),
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
            height, width = sizes[edge.source]
            size = ((height + 1) // 2, (width + 1) // 2) if edge.stride == 2 else (height, width)
            if sizes.setdefault(edge.target, size) != size:
                raise ValueError(
                    f"edges into state {edge.target} have sizes {sizes[edge.target]} and {size}; they must agree"
                )
        if any(sizes[state] != sizes[self.outputs[0]] for state in self.outputs):
            raise ValueError(f"output states differ in size: {[sizes[state] for state in self.outputs]}")
        return [sizes[state] for state in range(len(self.channels))]

    def walk(self) -> Iterator[tuple[Edge, int, Candidate]]:
        """Every candidate with its edge and its entry of α (-1 where none weighs it), in the order of parameters."""
        position = 0
        for edge in self.edges:
            for kind in edge.kinds:
                yield edge, position if edge.searched else -1, kind
                position += edge.searched

    def norm_sizes(self, inputs: Sequence[tuple[int, int]]) -> list[int]:
        """Values per image that every norm normalises in each channel."""
        areas = [height * width for height, width in self.sizes(inputs)]
        return [areas[state] for state in self.norm_states]


def _encode(spec: Spec) -> str:
    graph = {
        "channels": spec.channels,
        "inputs": spec.inputs,
        "edges": [asdict(edge) for edge in spec.edges],
        "outputs": spec.outputs,
        "norms": [asdict(norm) for norm in spec.norms],
    }
    return json.dumps(graph, separators=(",", ":"))


@lru_cache(maxsize=1024)
def decode(text: str) -> Spec:
    """The cell that `Spec.text` holds."""
    data = json.loads(text)
    return Spec(
        channels=tuple(data["channels"]),
        inputs=data["inputs"],
        edges=tuple(Edge(e["source"], e["target"], e["stride"], tuple(e["candidates"])) for e in data["edges"]),
        outputs=tuple(data["outputs"]),
        norms=tuple(Norm(**norm) for norm in data["norms"]),
    )


def _parameter_shapes(spec: Spec) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    norms = iter(spec.norms)
    for edge, _, kind in spec.walk():
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


def _validate_edges(spec: Spec) -> None:
    known, closed = set(range(spec.inputs)), set()
    for edge in spec.edges:
        if edge.source not in known or edge.target in closed or not spec.inputs <= edge.target < len(spec.channels):
            raise ValueError(
                f"edge {edge.source} → {edge.target} is out of order: an edge comes after all edges into its source"
            )
        known.add(edge.target)
        closed.add(edge.source)
        _validate_edge(spec, edge)
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
    if not edge.searched and len(edge.candidates) != 1:
        raise ValueError(f"a preprocessing operation is an edge's only one, got {edge.candidates}")
    reduces = any(isinstance(stage, Reduce) for kind in edge.kinds for stage in kind.stages)
    if reduces and after % 2:
        raise ValueError(f"a factorised reduce needs an even number of output channels, got {after}")
    if reduces and edge.stride != 2:
        raise ValueError(f"a factorised reduce has stride 2, got {edge.stride}")
    if "relu_conv_bn" in edge.candidates and edge.stride != 1:
        raise ValueError(f"relu_conv_bn has stride 1, got {edge.stride}")
