"""The memory of a training step."""

from __future__ import annotations

from dataclasses import dataclass

from fastnas.plan.engines import Engine
from fastnas.plan.ledger import Ledger
from fastnas.plan.networks import Described


@dataclass(frozen=True)
class Size:
    """Of a batch: images, their height and width."""

    batch: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.batch} × {self.height}×{self.width}"


@dataclass(frozen=True)
class Step:
    """Bytes of forward + backward of a batch, with every gradient, and of what an optimiser keeps meanwhile.

    Attributes:
        weights: parameters, α among them, and buffers.
        optimizer: a momentum for each weight (SGD), two for each α (Adam).
        images: of the batch, with labels.
        gradients: of all parameters.
        saved: what the forward leaves for its backward.
        scratch: the most that an operator takes while it runs.
        peak: the most at once of all these; less than their sum, since they are not all there at once.
    """

    weights: int
    optimizer: int
    images: int
    gradients: int
    saved: int
    scratch: int
    peak: int

    @property
    def before(self) -> int:
        """What is there before the step."""
        return self.weights + self.optimizer + self.images


def plan_step(network: Described, size: Size, engine: Engine, memory: str) -> Step:
    """Predict a step in memory mode "fast" or "lean"."""
    ledger = Ledger()
    for cell in network.cells:
        cell.use(ledger, engine, memory)
    batch = network.batch(size.batch, size.height, size.width)
    with ledger:
        loss = network.loss(batch)
        saved = ledger.tensors - loss.nbytes
        loss.backward()  # type: ignore[no-untyped-call]
    del loss
    network.clear_gradients()
    weights, alphas = network.weights + network.alphas, network.alphas
    images = sum(t.nbytes for t in batch)
    before = weights + network.buffers + network.weights + 2 * alphas + images
    return Step(
        weights=weights + network.buffers,
        optimizer=network.weights + 2 * alphas,
        images=images,
        gradients=weights,
        saved=saved,
        scratch=ledger.scratch,
        peak=before + ledger.peak,
    )
