"""The memory of a training step."""

from __future__ import annotations

from dataclasses import dataclass

from fastnas.plan.engines import Engine
from fastnas.plan.ledger import Ledger
from fastnas.plan.networks import Described, Network


@dataclass(frozen=True)
class Step:
    """Bytes of forward + backward, with every gradient.

    Attributes:
        weights: parameters and buffers, with α.
        optimizer: a momentum for each weight (SGD), two for each α (Adam).
        images: of the batch, with labels.
        gradients: of all parameters.
        saved: what autograd holds after the forward.
        scratch: the most that an operator takes while it runs.
        peak: the most at once of all these: fewer than their sum, since not all are there at the same time.
    """

    weights: int
    optimizer: int
    images: int
    gradients: int
    saved: int
    scratch: int
    peak: int

    @property
    def rise(self) -> int:
        """The peak above what is there before the step."""
        return self.peak - self.weights - self.optimizer - self.images
