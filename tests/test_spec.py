"""A cell that cannot be: one sentence says what was expected and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fastnas.ops import Edge, Norm, Spec

SEP = ("sep_conv_3x3",)
POOL = ("max_pool_3x3",)
PREPROCESS = ("relu_conv_bn",)
REDUCE = ("factorized_reduce",)
RESIZE = ("resize_conv_bn",)


def cell(
    edges: Sequence[Edge],
    channels: Sequence[int] = (4, 4, 4),
    inputs: int = 1,
    outputs: Sequence[int] = (2,),
    norms: Sequence[Norm] | None = None,
) -> Spec:
    """A cell, by default of one input and two states, with as many norms as it takes."""
    count = sum(kind.norms for edge in edges for kind in edge.kinds)
    given = (Norm(),) * count if norms is None else tuple(norms)
    return Spec(tuple(channels), inputs, tuple(edges), tuple(outputs), given)


CHAIN = [Edge(0, 1, 1, POOL), Edge(1, 2, 1, POOL)]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "norms": ({"edges": CHAIN, "norms": [Norm()]}, "the cell has 2 batch norms, got 1 descriptions"),
    "source later": ({"edges": CHAIN[::-1]}, "edge 1 → 2 is out of order"),
    "source closed": ({"edges": [*CHAIN, Edge(0, 1, 1, POOL)]}, "edge 0 → 1 is out of order"),
    "backwards": ({"edges": [CHAIN[0], Edge(1, 1, 1, POOL)]}, "edge 1 → 1 is out of order"),
    "into an input": ({"edges": CHAIN, "inputs": 2}, "edge 0 → 1 is out of order"),
    "no such state": ({"edges": [CHAIN[0], Edge(1, 3, 1, POOL)]}, "edge 1 → 3 is out of order"),
    "like later": ({"edges": [Edge(0, 1, 1, RESIZE, like=2)]}, "edge 0 → 1 is like state 2, which comes later"),
    "unreached": ({"edges": CHAIN[:1]}, "no edge leads to state 2"),
    "no outputs": ({"edges": CHAIN, "outputs": ()}, r"outputs must be states that edges lead to, got \(\)"),
    "input as output": ({"edges": CHAIN, "outputs": (0,)}, r"outputs must be states that edges lead to, got \(0,\)"),
    "stride": ({"edges": [CHAIN[0], Edge(1, 2, 3, POOL)]}, "stride must be 1 or 2, got 3"),
    "channels": ({"edges": CHAIN, "channels": (4, 4, 6)}, "candidates keep the channels, but edge 1 → 2 has 4 and 6"),
    "identity wider": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, ("identity",))], "channels": (4, 4, 6)},
        "an identity keeps channels and size, got 4 to 6 with stride 1",
    ),
    "identity smaller": (
        {"edges": [CHAIN[0], Edge(1, 2, 2, ("identity",))]},
        "an identity keeps channels and size, got 4 to 4 with stride 2",
    ),
    "like without resizing": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, POOL, like=0)]},
        r"only resize_conv_bn takes the size of another state, got \('max_pool_3x3',\)",
    ),
    "like and stride": (
        {"edges": [CHAIN[0], Edge(1, 2, 2, RESIZE, like=0)]},
        "an edge takes its size from a stride or from a state, got stride 2 and both",
    ),
    "preprocessing and more": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, (*PREPROCESS, *POOL))]},
        "a preprocessing operation is an edge's only one",
    ),
    "odd reduce": (
        {"edges": [CHAIN[0], Edge(1, 2, 2, REDUCE)], "channels": (4, 4, 5)},
        "a factorised reduce needs an even number of output channels, got 5",
    ),
    "odd skip": (
        {"edges": [CHAIN[0], Edge(1, 2, 2, ("skip_connect",))], "channels": (5, 5, 5)},
        "a factorised reduce needs an even number of output channels, got 5",
    ),
    "reduce of stride 1": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, REDUCE)]},
        "a factorised reduce has stride 2, got 1",
    ),
    "1×1 of stride 2": ({"edges": [CHAIN[0], Edge(1, 2, 2, PREPROCESS)]}, "relu_conv_bn has stride 1, got 2"),
    "shares a later edge": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, POOL, shares=1)]},
        "edge 1 can share the parameters of an edge before it, got 1",
    ),
    "shares no edge": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, POOL, shares=-1)]},
        "edge 1 can share the parameters of an edge before it, got -1",
    ),
    "shares another kind": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, SEP, shares=0)]},
        r"edges that share parameters must be alike, got \(\('sep_conv_3x3',\), 1, 4, 4\)",
    ),
    "shares other parameters": (
        {"edges": [CHAIN[0], Edge(1, 2, 1, POOL, shares=0)], "norms": [Norm(), Norm(affine=True)]},
        r"edge 1 → 2 cannot share parameters of \[\], it takes \[\(4,\), \(4,\)\]",
    ),
    "unknown candidate": (
        {"edges": [Edge(0, 1, 1, ("conv_9x9",))]},
        "unknown candidate operation 'conv_9x9'; known are",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_cell_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cell(**given)


def test_sizes_must_agree() -> None:
    two_inputs = {"channels": (4, 4, 4), "inputs": 2}
    spec = cell([Edge(0, 2, 2, POOL), Edge(1, 2, 1, POOL)], **two_inputs)
    assert spec.sizes([(7, 8), (4, 4)]) == [(7, 8), (4, 4), (4, 4)]
    with pytest.raises(ValueError, match=r"edges into state 2 have sizes \(4, 4\) and \(3, 4\); they must agree"):
        spec.sizes([(7, 8), (3, 4)])
    spec = cell([Edge(0, 1, 1, POOL), Edge(0, 2, 2, POOL)], outputs=(1, 2))
    with pytest.raises(ValueError, match=r"output states differ in size: \[\(5, 6\), \(3, 3\)\]"):
        spec.sizes([(5, 6)])


def test_what_is_read_of_a_state() -> None:
    """A sum that only goes on into other sums is read by nothing, and so neither kept nor asked for."""
    plain = ("identity",)
    edges = [Edge(0, 2, 1, POOL), Edge(1, 2, 1, plain), Edge(0, 4, 1, SEP), Edge(2, 3, 1, plain)]
    spec = cell(edges, (4,) * 5, 2, (3, 4))
    assert (spec.unread_inputs, spec.inner_states, spec.reads_outputs) == (frozenset({1}), [], False)
    assert spec.stage_states == [4]
    assert [entry for _, entry, _ in spec.walk()] == [0, -1, 1, -1]
    assert spec.norm_sizes([(3, 5), (3, 5)]) == [15, 15, 15]
    inner = cell(
        [Edge(0, 2, 1, POOL), Edge(2, 3, 1, POOL), Edge(3, 4, 1, POOL), Edge(1, 4, 1, POOL)], (4,) * 5, 2, (3, 4)
    )
    assert (inner.unread_inputs, inner.inner_states, inner.reads_outputs) == (frozenset(), [2], True)
