"""The supernets of PC-DARTS and GDAS against plain PyTorch, in float64: logits, all gradients, running statistics."""

from __future__ import annotations

import copy

import pytest
import stock
import stock_pc_darts
import torch
from torch import Tensor, nn

from fastnas.nn import DartsSupernet, GdasSupernet, PCDartsSupernet
from fastnas.nn.supernet import EDGES

pytestmark = pytest.mark.usefixtures("one_thread")

LARGE = 3.0  # α and β far from uniform


def spread(network: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("alphas", "betas")):
                parameter.copy_(LARGE * torch.randn_like(parameter))


def assert_close(ours: Tensor | None, expected: Tensor | None, what: str) -> None:
    assert (ours is None) == (expected is None), what
    if expected is not None:
        assert (ours - expected).abs().max() <= 1e-10 * expected.abs().max().clamp_min(1e-3), what


def step(network: nn.Module, images: Tensor) -> Tensor:
    logits = network(images)
    logits.square().sum().backward()
    return logits


def assert_same(ours: nn.Module, theirs: nn.Module, images: Tensor) -> None:
    """One step of both: logits, the gradients of everything, buffers."""
    assert_close(step(ours, images), step(theirs, images), "logits")
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, expected[name].grad, name)
    buffers = dict(ours.named_buffers())
    for name, buffer in theirs.named_buffers():
        assert_close(buffers[name].double(), buffer.double(), name)


def test_pc_darts_has_the_papers_size() -> None:
    network = PCDartsSupernet()
    assert sum(p.numel() for p in network.weight_parameters()) == 299_578
    assert [p.numel() for p in network.arch_parameters()] == [112, 112, 14, 14]


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_pc_darts_is_the_stock_network(memory: str) -> None:
    theirs = stock_pc_darts.Network(8, 3, 5).double()
    spread(theirs)
    ours = PCDartsSupernet(8, 3, 5, memory=memory).double()
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert_close(ours.eval()(images), theirs.eval()(images), "in evaluation")


def test_pc_darts_takes_odd_sizes() -> None:
    network = PCDartsSupernet(4, 3)
    assert network(torch.randn(2, 3, 7, 5)).shape == (2, 10)


def test_pc_darts_needs_a_multiple_of_four_channels() -> None:
    with pytest.raises(ValueError, match="partial channels need a multiple of 4 channels, got 6"):
        PCDartsSupernet(6, 3)


def test_pc_darts_decodes_what_beta_weighs() -> None:
    network = PCDartsSupernet(4, 3)
    with torch.no_grad():
        network.betas_normal[5:9] = torch.tensor([0.0, 9.0, 0.0, 9.0])  # the edges of node 2
    assert sorted(source for _, source in network.genotype().normal.nodes[2]) == [1, 3]


def one_hot(weights: Tensor, chosen: list[int]) -> Tensor:
    return torch.zeros(EDGES, 8, dtype=weights.dtype).scatter(1, torch.tensor(chosen)[:, None], weights[:, None])


class OneHot(stock.Network):
    """The stock network that computes all candidates, weighted by a draw of GDAS: by 0, but for the one drawn."""

    draws: list[tuple[Tensor, list[int]]]

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, one_hot(*self.draws[cell.reduction]))
        return self.classifier(self.global_pooling(s1).flatten(1))


def test_gdas_is_the_stock_network_with_the_weights_of_its_draw() -> None:
    ours = GdasSupernet(4, 3, 5).double()
    spread(ours)
    theirs = OneHot(4, 3, 5).double()
    theirs.load_state_dict(ours.state_dict())
    images, state = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.get_rng_state()
    expected = copy.deepcopy(ours)
    theirs.draws = expected.mixtures()
    torch.set_rng_state(state)
    assert_close(step(ours, images), step(theirs, images), "logits")
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    names = [name for name in gradients if not name.startswith("alphas")]
    drawn = {name: p.grad for name, p in ours.named_parameters() if name in names and p.grad is not None}
    for name in names:
        if name in drawn:
            assert_close(drawn[name], gradients[name], name)
        else:
            assert not gradients[name].any(), name
    assert 0 < len(drawn) < len(names)
    for alphas, twins in zip(ours.arch_parameters(), expected.arch_parameters(), strict=True):
        assert_close(alphas.grad, twins.grad, "α")
        assert alphas.grad.any()


def test_gdas_draws_by_softmax_at_any_temperature() -> None:
    network = GdasSupernet(1, 1)
    with torch.no_grad():
        network.alphas_normal.copy_(torch.linspace(-1, 1, 8).expand(EDGES, 8))
    expected = network.alphas_normal[0].softmax(-1)
    for network.temperature in (10.0, 0.1):
        chosen = torch.tensor([network.mixtures()[0][1] for _ in range(500)]).flatten()
        shares = chosen.bincount(minlength=8) / len(chosen)
        assert (shares - expected).abs().max() < 5 * (0.25 / len(chosen)) ** 0.5


def test_a_draw_weighs_one_and_has_the_gradient_of_the_relaxation() -> None:
    network = GdasSupernet(1, 1)
    network.temperature = 0.7
    state = torch.get_rng_state()
    weights, chosen = network.mixtures()[0]
    assert torch.equal(weights, torch.ones(EDGES))
    torch.set_rng_state(state)
    uniform = torch.empty(EDGES, 8).exponential_()
    logits = (network.alphas_normal.log_softmax(-1) - uniform.log()) / 0.7
    assert chosen == logits.argmax(-1).tolist()
    (ours,) = torch.autograd.grad(weights.sum(), network.alphas_normal)
    relaxed = logits.softmax(-1)[torch.arange(EDGES), torch.tensor(chosen)]
    (expected,) = torch.autograd.grad(relaxed.sum(), network.alphas_normal)
    torch.testing.assert_close(ours, expected)


def test_a_relaxation_weighs_the_candidates() -> None:
    theirs = stock.Network(2, 3, 5).double()
    spread(theirs)
    ours = DartsSupernet(2, 3, 5, relaxation=torch.sigmoid).double()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    s0 = s1 = theirs.stem(images)
    for cell in theirs.cells:
        weights = torch.sigmoid(theirs.alphas_reduce if cell.reduction else theirs.alphas_normal)
        s0, s1 = s1, cell(s0, s1, weights)
    assert_close(ours(images), theirs.classifier(s1.mean((2, 3))), "logits")
