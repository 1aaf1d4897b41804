"""What a step of a model tells about its parts."""

from __future__ import annotations

from typing import Any

import foreign_networks
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fastnas
from fastnas.errors import UserError
from fastnas.swap.calls import Arguments, seen
from fastnas.swap.cost import cost, costs
from fastnas.swap.modules import is_swapped


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("fastnas.swap.cost.now", clock)
    monkeypatch.setattr("fastnas.swap.part.now", clock)
    return clock


class Passing(torch.autograd.Function):
    """Takes some seconds of a clock in forward and ten times as many in backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clock: Clock, seconds: float) -> Tensor:
        ctx.clock, ctx.seconds = clock, seconds
        clock.seconds += seconds
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.clock.seconds += 10 * ctx.seconds
        return grads[0] * 2, None, None


class Slow(nn.Module):
    """Two nodes of autograd for every argument."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, *inputs: Tensor) -> Tensor:
        halves = [Passing.apply(x * self.weight, self.clock, self.seconds / 2) for x in inputs]
        return sum(Passing.apply(x, self.clock, self.seconds / 2) for x in halves)  # type: ignore[return-value]


class Wired(nn.Module):
    """Its modules' arguments are those of others, too."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.first, self.second, self.third = Slow(clock, 1.0), Slow(clock, 2.0), Slow(clock, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(x, a)
        return self.third(b, a) + a.sin()


def test_a_step_tells_the_time_of_every_part(clock: Clock) -> None:
    network = Wired(clock)
    whole, told = costs(network, Arguments((torch.randn(3),), {}), [network, *network.children()])
    assert {part: found.seconds for part, found in told.items()} == {
        network: 11 * 13.0,
        network.first: 11 * 1.0,
        network.second: 11 * 4.0,
        network.third: 11 * 8.0,
    }
    assert whole.seconds == 11 * 13.0


def test_parts_save_what_they_save_alone() -> None:
    network = foreign_networks.Darts()
    x = torch.randn(2, 3, 16, 16)
    called = seen(network, network.cells, [], x).arguments
    whole, told = costs(network, Arguments((x,), {}), network.cells)
    assert {cell: found.saved for cell, found in told.items()} == {
        cell: cost(cell, called[cell]).saved for cell in network.cells
    }
    assert whole.saved == cost(network, Arguments((x,), {})).saved


class Apart(nn.Module):
    """Its parts are called twice, on what needs no gradient, and within a checkpoint."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.twice, self.first, self.kept = Slow(clock, 1.0), Slow(clock, 1.0), Slow(clock, 1.0)

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.kept, self.twice(self.twice(self.first(x.detach()))), use_reentrant=False)


def test_what_a_step_does_not_tell_is_left_out(clock: Clock) -> None:
    network = Apart(clock)
    whole, told = costs(network, Arguments((torch.randn(3),), {}), network.children())
    assert not told
    assert whole.seconds == 11 * 4.0


def test_a_backward_that_fails_is_reported() -> None:
    """PyTorch's older checkpoints refuse to compute chosen gradients only."""
    network = nn.Sequential(foreign_networks.Darts(), nn.Linear(foreign_networks.CLASSES, 1))
    before = network[0].forward
    network[0].forward = lambda x: checkpoint(before, x.requires_grad_(), use_reentrant=True)  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"backward on example_inputs fails.*use_reentrant=True"):
        fastnas.accelerate(network, example_inputs=torch.randn(2, 3, 16, 16))
    assert not any(map(is_swapped, network.modules()))
