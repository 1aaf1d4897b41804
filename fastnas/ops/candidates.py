"""The candidate operations of a mixed edge, described as data.

Every backend builds a candidate from the description here, so a new convolution is one new line in `CANDIDATES`
(docs/new-candidate.md). Names and definitions: Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019,
§3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Depthwise:
    """ReLU, then a depthwise convolution of size `kernel` and rate `dilation`, then a 1×1 convolution."""

    kernel: int
    dilation: int = 1


@dataclass(frozen=True)
class Pointwise:
    """ReLU, then a 1×1 convolution."""


@dataclass(frozen=True)
class Reduce:
    """Factorised reduce: ReLU, then two 1×1 convolutions of stride 2, on x and on x[1:, 1:], concatenated."""


@dataclass(frozen=True)
class Resize:
    """Bilinear resampling to the size of the edge's target (corners' pixels on each other), ReLU, a 1×1 convolution."""


Stage = Depthwise | Pointwise | Reduce | Resize


@dataclass(frozen=True)
class Candidate:
    """One way to get from a state to the next; each stage, and each pool, is followed by batch norm.

    A candidate of stride 2 strides in its first stage.
    """

    pool: Literal["max", "avg"] | None = None
    stages: tuple[Stage, ...] = ()
    identity: bool = False

    @property
    def norms(self) -> int:
        """How many batch norms it has."""
        return len(self.stages) + (self.pool is not None)


CANDIDATES: dict[str, Candidate] = {
    "none": Candidate(),
    "max_pool_3x3": Candidate(pool="max"),
    "avg_pool_3x3": Candidate(pool="avg"),
    "skip_connect": Candidate(identity=True),
    "sep_conv_3x3": Candidate(stages=(Depthwise(3), Depthwise(3))),
    "sep_conv_5x5": Candidate(stages=(Depthwise(5), Depthwise(5))),
    "dil_conv_3x3": Candidate(stages=(Depthwise(3, dilation=2),)),
    "dil_conv_5x5": Candidate(stages=(Depthwise(5, dilation=2),)),
    # Depthwise-separable, applied once, where DARTS applies such a convolution twice.
    "dws_conv_3x3": Candidate(stages=(Depthwise(3),)),
    "dws_conv_5x5": Candidate(stages=(Depthwise(5),)),
}

# What α does not weigh: what leads from a cell's inputs to the states its edges read, and a plain sum.
PREPROCESS: dict[str, Candidate] = {
    "relu_conv_bn": Candidate(stages=(Pointwise(),)),
    "factorized_reduce": Candidate(stages=(Reduce(),)),
    "resize_conv_bn": Candidate(stages=(Resize(),)),
    "identity": Candidate(identity=True),
}

DARTS_CANDIDATES: tuple[str, ...] = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The paper's eight, in the order of its code: columns of α, whatever else `CANDIDATES` holds."""


def candidate(name: str, stride: int) -> Candidate:
    """The description of candidate `name` at `stride`.

    `skip_connect` at stride 2 is a factorised reduce (DARTS, appendix A.1.1).

    Raises:
        ValueError: the name is not known.
    """
    if name == "skip_connect" and stride == 2:
        return PREPROCESS["factorized_reduce"]
    known = CANDIDATES | PREPROCESS
    if name not in known:
        raise ValueError(f"unknown candidate operation {name!r}; known are {', '.join(known)}")
    return known[name]
