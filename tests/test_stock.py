"""The baseline of the benchmarks is the network it claims to be, and the fused network computes the same."""

from __future__ import annotations

import pytest
import stock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import DartsSupernet

pytestmark = pytest.mark.usefixtures("one_thread")


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in network.state_dict().items()}


def small(**options: bool) -> stock.Network:
    return stock.Network(channels=4, layers=3, **options)


def gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Logits, then the gradients of every parameter."""
    logits = network(images)
    return [logits, *torch.autograd.grad(F.cross_entropy(logits, labels), list(network.parameters()))]


def test_it_has_the_paper_s_number_of_parameters() -> None:
    network = stock.Network()
    assert sum(p.numel() for p in network.weight_parameters()) == 1_930_618
    assert [p.shape for p in network.arch_parameters()] == [(14, 8), (14, 8)]
    assert sum(p.numel() for p in network.parameters()) == 1_930_618 + 224


def test_weights_and_alphas_are_all_parameters_once() -> None:
    network = small()
    parts = [*network.weight_parameters(), *network.arch_parameters()]
    assert len(parts) == len({id(p) for p in parts}) == len(list(network.parameters()))


@pytest.mark.parametrize(("layers", "reductions"), [(3, [1, 2]), (6, [2, 4]), (8, [2, 5]), (20, [6, 13])])
def test_reductions_are_at_a_third_and_two_thirds(layers: int, reductions: list[int]) -> None:
    network = stock.Network(channels=2, layers=layers)
    assert [i for i, cell in enumerate(network.cells) if cell.reduction] == reductions
    after = [i for i, cell in enumerate(network.cells) if isinstance(cell.preprocess0, stock.FactorizedReduce)]
    assert after == [i + 1 for i in reductions if i + 1 < layers]


def test_its_state_dict_is_the_fused_network_s() -> None:
    ours, theirs = DartsSupernet(), stock.Network()
    assert shapes(ours) == shapes(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())


def test_its_names_are_those_of_public_code() -> None:
    names = set(stock.Network().state_dict())
    for name in (
        "stem.0.weight",
        "cells.0.preprocess0.op.1.weight",
        "cells.3.preprocess0.conv_2.weight",
        "cells.2._ops.0._ops.3.conv_1.weight",
        "cells.2._ops.0._ops.3.bn.running_mean",
        "cells.0._ops.13._ops.4.op.5.weight",
        "cells.0._ops.0._ops.1.1.running_var",
        "classifier.bias",
    ):
        assert name in names
    assert not any(name.startswith("cells.0._ops.0._ops.0.") for name in names)


def test_shapes_from_images_to_logits() -> None:
    network, images = small(), torch.randn(2, 3, 16, 16)
    found: list[torch.Size] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _module, _inputs, out: found.append(out.shape))
    assert network(images).shape == (2, 10)
    assert found == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 64, 4, 4)]


@pytest.mark.parametrize("stride", [1, 2])
def test_an_edge_is_the_weighted_sum_of_its_candidates(stride: int) -> None:
    edge, x, weights = stock.MixedOp(4, stride), torch.randn(2, 4, 8, 8), torch.rand(8)
    y = edge(x, weights)
    assert y.shape == (2, 4, 8 // stride, 8 // stride)
    one_by_one = torch.stack([w * op(x) for w, op in zip(weights, edge._ops, strict=True)]).sum(0)
    torch.testing.assert_close(y, one_by_one)


def test_none_turns_infinity_into_nan_as_public_code_does() -> None:
    assert stock.Zero(2)(torch.full((1, 1, 4, 4), torch.inf)).isnan().all()


def test_running_statistics_move_once_a_step_and_twice_with_checkpointing() -> None:
    images, labels = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    plain, checkpointed = small(), small(checkpointed=True)
    checkpointed.load_state_dict(plain.state_dict())
    before = {name: t.clone() for name, t in plain.named_buffers()}
    expected, found = (gradients(network, images, labels) for network in (plain, checkpointed))
    assert all(not torch.equal(t, before[name]) for name, t in plain.named_buffers())
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    steps = [network.cells[0]._ops[0]._ops[4].op[3].num_batches_tracked for network in (plain, checkpointed)]
    assert steps == [1, 2]


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_the_fused_network_computes_the_same(memory: str) -> None:
    images, labels = torch.randn(2, 3, 16, 16).double(), torch.tensor([0, 1])
    theirs, ours = small().double(), DartsSupernet(4, 3, memory=memory).double()
    ours.load_state_dict(theirs.state_dict())
    names = ["logits", *(name for name, _ in theirs.named_parameters())]
    assert names[1:] == [name for name, _ in ours.named_parameters()]
    results = (gradients(network, images, labels) for network in (ours, theirs))
    for name, a, b in zip(names, *results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")
