"""What the processes of one run exchange, through torch.distributed: docs/distributed.md.

Every process holds the whole network and computes the gradients of its share of each batch. A process that is alone
exchanges nothing, and goes on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count as counted
from typing import TypeVar

import torch
import torch.distributed as dist
from numpy.random import SeedSequence
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from fastnas.errors import LostError, UserError, first_line
from fastnas.search.launch import launched

# For the slowest process to come to the next exchange, so that nobody waits for ever for one that hangs.
TIMEOUT = timedelta(minutes=10)

_meetings = counted()

Value = TypeVar("Value")


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """The processes that torchrun started meet, and exchange inside the block: GPUs by NCCL, processors by Gloo.

    A program that has brought them together already keeps them so.

    Raises:
        UserError: they did not meet.
    """
    if launched().count == 1 or dist.is_initialized():
        yield
        return
    gpu = device if device.type == "cuda" else None
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # A second run in this process finds no addresses of the first.
        own = dist.PrefixStore(f"fastnas-{next(_meetings)}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=TIMEOUT, device_id=gpu)
    except RuntimeError as error:
        raise UserError(f"the processes of the run did not meet: {first_line(error)}") from error
    yield
    total(torch.zeros(()))  # what the first has written is there for all
    dist.destroy_process_group()  # not after an error, when others may still wait for this one: it ends soon


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[\S+\] |\. This is typically.*", "", first_line(error))  # where in Gloo, and its advice
        raise LostError(f"another process of the run is gone ({reason})") from error


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes, in one exchange; the same bits in every process."""
    count = launched().count
    if count == 1:
        return list(tensors)
    flat = torch.cat([t.detach().flatten() for t in tensors])
    with _exchange():
        dist.all_reduce(flat)
    return _parts(flat.div_(count), tensors)


def _parts(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What `flat` holds, in the shapes of the tensors that it was made of."""
    parts = flat.split_with_sizes([t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives `grad` its mean over all processes; one that is None counts as zero, where not all are."""
    if launched().count == 1:
        return
    chosen = list(parameters)
    there = torch.tensor([float(p.grad is not None) for p in chosen], device=chosen[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in chosen]
    *means, somewhere = mean([*gradients, there])
    torch._foreach_copy_(gradients, means)
    for parameter, gradient, share in zip(chosen, gradients, somewhere.tolist(), strict=True):
        parameter.grad = gradient if share else None


def total(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if launched().count == 1:
        return values
    summed = values.clone()
    with _exchange():
        dist.all_reduce(summed)
    return summed


def from_all(value: Value) -> list[Value]:
    """What each process has as `value`, in the order of their ranks: numbers, strings, tensors on the CPU, lists."""
    values = [value] * launched().count
    if len(values) > 1:
        with _exchange():
            dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def agree(network: nn.Module) -> None:
    """Gives every process the parameters and buffers of the first, running statistics among them."""
    if launched().count == 1:
        return
    tensors = [t.detach() for t in (*network.parameters(), *network.buffers())]
    for dtype in dict.fromkeys(t.dtype for t in tensors):  # in the same order everywhere
        alike = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.flatten() for t in alike])
        with _exchange():
            dist.broadcast(flat, 0)
        torch._foreach_copy_(alike, _parts(flat, alike))


def diverge() -> None:
    """Seeds PyTorch in every process but the first anew: what is drawn while training differs among them."""
    rank = launched().rank
    if rank > 0:
        state = SeedSequence((torch.initial_seed(), rank)).generate_state(1, dtype="uint64")
        torch.manual_seed(int(state[0]) >> 1)
