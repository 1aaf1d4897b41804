"""Memory of a step; run it in a fresh process."""

from __future__ import annotations

import torch
from contestants import Contestant, Sizes, make

from fastnas.measure import peak, saved_for_backward
from fastnas.ops import release_workspaces

QUANTITIES = ("saved", "resident", "peak")


def memory(name: str, setting: Sizes, threads: int) -> dict[str, float]:
    """Bytes of a step of contestant `name`: saved for backward, resident meanwhile, and at the peak."""
    torch.set_num_threads(threads)
    contestant = make(name, setting)
    _warm_up(contestant)
    highest = peak(contestant.forward_backward)
    network, (images, labels) = contestant.network, contestant.training
    network.zero_grad(set_to_none=True)
    # The step left its memory in the pool, where what is measured next would find it.
    release_workspaces()
    existing = [images, labels, *network.parameters(), *network.buffers()]
    saved = saved_for_backward(lambda: contestant.loss(contestant.training), existing)
    return dict(zip(QUANTITIES, (saved.storages, saved.resident, highest), strict=True))


def _warm_up(contestant: Contestant) -> None:
    """Make libraries allocate what they do on first use, on images so small that scratch memory has yet to grow.

    A step of full size would leave its workspaces behind, and the peak of the next step would lack them.
    """
    images, labels = contestant.training
    labels = labels[:2, :8, :8] if labels.dim() == 3 else labels[:2]
    small = Contestant(contestant.network, (images[:2, :, :8, :8], labels), contestant.validation)
    small.forward_backward()
    contestant.network.zero_grad(set_to_none=True)
