"""How people train an accelerated model: optimisers, architects, wrappers, autocast, compilation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import foreign
import foreign_networks
import pytest
import stock
import torch
import torch.distributed
import torch.nn.functional as F
from foreign import C
from swapped import TOLERANCE, assert_same, pair, weights, x
from torch import Tensor, nn

import fastnas

pytestmark = pytest.mark.usefixtures("one_thread", "unmeasured")


def edges() -> tuple[nn.Module, nn.Module]:
    theirs, ours = pair(foreign.SoftmaxInside())
    assert fastnas.accelerate(ours, strict=True).fused
    return theirs, ours


def assert_same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("before", [True, False])
def test_optimisers_made_before_or_after(before: bool) -> None:
    theirs, ours = pair(foreign.SoftmaxInside())
    inputs = [x() for _ in range(3)]
    for module in (theirs, ours):
        if module is ours and not before:
            fastnas.accelerate(module, strict=True)
        optimiser = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        for given in inputs:
            optimiser.zero_grad()
            module(given).square().mean().backward()
            optimiser.step()
            if module is ours and before:  # in the middle of training
                fastnas.accelerate(module, strict=True)
    assert_same_parameters(ours, theirs)


def test_gradients_add_up_over_batches() -> None:
    theirs, ours = edges()
    for given in (x(), x()):
        for module in (theirs, ours):
            module(given).square().mean().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=TOLERANCE, atol=TOLERANCE)


def test_moves_to_another_dtype() -> None:
    theirs, ours = edges()
    for module in (theirs, ours):
        module.float()
    given = x().detach().float()
    torch.testing.assert_close(ours(given), theirs(given))
    ours.load_state_dict(theirs.state_dict())  # statistics that float32 has rounded
    assert_same(ours.to(torch.float64), theirs.to(torch.float64), (x(),))


@pytest.mark.usefixtures("group")
def test_distributed_data_parallel() -> None:
    theirs, ours = edges()
    wrapped = [nn.parallel.DistributedDataParallel(m, broadcast_buffers=True) for m in (theirs, ours)]
    given = x()
    for module in wrapped:
        module(given).square().mean().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=TOLERANCE, atol=TOLERANCE)
    assert_same_parameters(ours, theirs)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_data_parallel_without_a_gpu() -> None:
    theirs, ours = edges()
    assert_same(nn.DataParallel(ours), nn.DataParallel(theirs), (x(),))


def test_autocast_computes_in_float32() -> None:
    theirs, ours = edges()
    for module in (theirs, ours):
        module.float()
    given = x().detach().float()
    exact = theirs(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, out = theirs(given), ours(given)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, exact)
    torch.testing.assert_close(out, rough.float(), rtol=0.1, atol=0.1)
    out.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


def test_a_compiled_model_around() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edge = foreign.SoftmaxInside()

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.edge(x + 1)) * 2

    theirs, ours = pair(Around())
    fastnas.accelerate(ours, example_inputs=x(), strict=True)
    given = x()
    assert_same(_Forwarding(torch.compile(ours, backend="eager"), ours), theirs, (given,))


class _Forwarding(nn.Module):
    """A compiled function of a module, with the module's parameters."""

    def __init__(self, compiled: nn.Module, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.__dict__["compiled"] = compiled

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.compiled(x)
        return out


def unrolled(network: foreign_networks.Darts, fresh: foreign_networks.Darts) -> list[Tensor]:
    """α's gradients after a step of the weights, as in DARTS' second order: Hessian products by differences."""
    torch.manual_seed(2)
    train, valid = ((torch.randn(4, 3, 8, 8).double(), torch.randint(5, (4,))) for _ in range(2))

    def loss(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(data[0]), data[1])

    params = list(network.parameters())
    grads = torch.autograd.grad(loss(network, train), params)
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        for p, q, g in zip(fresh.parameters(), params, grads, strict=True):
            p.copy_(q - 0.025 * (g + 3e-4 * q))
    vector = torch.autograd.grad(loss(fresh, valid), [*fresh.alphas, *fresh.parameters()])
    direct, vector = vector[:2], vector[2:]
    r = 1e-2 / float(torch.cat([v.flatten() for v in vector]).norm())
    sides = []
    for sign in (1, -2, 1):  # there, to the other side, and back
        for p, v in zip(params, vector, strict=True):
            p.data.add_(v, alpha=sign * r)
        sides.append(torch.autograd.grad(loss(network, train), network.alphas))
    return [d - 0.025 * (a - b) / (2 * r) for d, a, b in zip(direct, sides[0], sides[1], strict=True)]


@pytest.mark.parametrize("how", ["a new model", "a copy"])
def test_second_order_architects(how: str) -> None:
    theirs, ours = pair(foreign_networks.Darts(layers=2))
    images = torch.randn(2, 3, 8, 8).double()
    fastnas.accelerate(ours, example_inputs=images, strict=True)
    # The architect's own model is not accelerated if it is a new one, and is if it is a copy.
    expected = unrolled(theirs, theirs.new())
    found = unrolled(ours, ours.new() if how == "a new model" else copy.deepcopy(ours))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    assert_same_parameters(ours, theirs)


def test_a_model_is_accelerated_once_however_often_it_is_asked_for() -> None:
    theirs, ours = pair(stock.MixedOp(C, 1))
    for _ in range(2):
        assert [e.candidates for e in fastnas.accelerate(ours, strict=True).fused] == [8]
    assert_same(ours, theirs, (x(), weights()))
    fastnas.restore(fastnas.restore(ours))
    assert type(ours) is type(theirs)
    assert_same(ours, theirs, (x(), weights()))
