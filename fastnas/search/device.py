"""The device that a run computes on, and what is brought there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fastnas.errors import UserError
from fastnas.search.launch import launched


def find_device(name: str) -> torch.device:
    """The device of that name: "auto" (the first GPU if there is one), "cpu", "cuda" or "cuda:1".

    Of several processes of one run each gets a GPU of its own by "auto" and "cuda".

    Raises:
        UserError: there is no such device here.
    """
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if name not in ("auto", "cuda") and not (kind == "cuda" and number.isdecimal()):
        raise UserError(f"--device is {name!r}, expected auto, cpu, cuda or cuda:NUMBER")
    launch = launched()
    if launch.count > 1 and number:
        raise UserError(f"--device is {name}, but torchrun gives each process a GPU of its own; expected auto or cuda")
    if launch.local_count > count > 0:
        raise UserError(
            f"torchrun started {launch.local_count} processes here, and PyTorch finds {count} CUDA GPUs; give a "
            f"--nproc-per-node of at most {count}, or --device cpu"
        )
    index = int(number or launch.local_rank)
    if index >= count:
        found = "PyTorch finds no CUDA GPU" if count == 0 else f"the last of {count} is cuda:{count - 1}"
        raise UserError(f"--device is {name}, but {found}")
    return torch.device("cuda", index)


def device_of(network: nn.Module) -> torch.device:
    """Where the network's parameters are."""
    return next(network.parameters()).device


def on_device(batches: Iterator[tuple[Tensor, Tensor]], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, images and labels, on `device`; a GPU copies them from pinned memory while it computes."""
    for batch in batches:
        images, labels = (t.pin_memory() for t in batch) if device.type == "cuda" else batch
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
