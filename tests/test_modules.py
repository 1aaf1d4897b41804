"""Edges, cells and the supernet as modules, against the stock network that shares no code with them."""

from __future__ import annotations

import copy
import pickle

import pytest
import stock
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import Cell, DartsSupernet, MixedOp
from fastnas.ops import DARTS_CANDIDATES

BACKENDS = ["cpu", "reference"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def supernets(backend: str, memory: str = "fast", **arguments: int) -> tuple[stock.Network, DartsSupernet]:
    sizes = {"channels": 4, "layers": 3, "num_classes": 5} | arguments
    theirs = stock.Network(**sizes).double()
    ours = DartsSupernet(**sizes, memory=memory, backend=backend).double()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for a in (*theirs.arch_parameters(), *ours.arch_parameters()):
            a.mul_(500)
    return theirs, ours


def assert_same(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-9) -> None:
    """The same parameters, gradients and buffers."""
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=tolerance, msg=name)


def test_parameter_counts_are_the_papers() -> None:
    network = DartsSupernet()
    assert sum(p.numel() for p in network.weight_parameters()) == 1_930_618
    assert sum(p.numel() for p in network.arch_parameters()) == 224
    assert {id(p) for p in network.parameters()} == {
        id(p) for p in network.weight_parameters() + network.arch_parameters()
    }


@pytest.mark.parametrize("memory", ["fast", "lean"])
@backends
def test_supernet_trains_as_stock_does(backend: str, memory: str) -> None:
    theirs, ours = supernets(backend, memory)
    optimisers = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (theirs, ours)]
    for _ in range(3):
        x, y = torch.randn(4, 3, 12, 12).double(), torch.randint(5, (4,))
        for network, optimiser in zip((theirs, ours), optimisers, strict=True):
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
    assert_same(ours, theirs, 1e-7)
    x = torch.randn(2, 3, 12, 12).double()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-7, atol=1e-7)


@backends
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (33, 2)])
def test_supernet_takes_any_size(backend: str, size: tuple[int, int]) -> None:
    network = DartsSupernet(4, 3, 5, in_channels=1, backend=backend)
    x = torch.randn(3, 1, *size, requires_grad=True)
    network(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@backends
def test_one_value_per_channel_is_refused_in_training_only(backend: str) -> None:
    network = DartsSupernet(4, 3, 5, backend=backend)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        network(torch.randn(1, 3, 2, 2))
    assert network.eval()(torch.randn(1, 3, 2, 2)).shape == (1, 5)


@pytest.mark.parametrize("argument", ["channels", "layers", "num_classes", "in_channels"])
def test_numbers_below_one_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        DartsSupernet(**{argument: 0})


@backends
def test_only_the_phase_s_gradients_are_computed(backend: str) -> None:
    theirs, ours = supernets(backend)
    for trained in ("arch_parameters", "weight_parameters"):
        for network in (theirs, ours):
            network.requires_grad_(False)
            network.zero_grad(set_to_none=True)
            for p in getattr(network, trained)():
                p.requires_grad_(True)
            torch.manual_seed(1)
            network(torch.randn(4, 3, 8, 8).double()).square().sum().backward()
        assert_same(ours, theirs)


NORMS = {
    "momentum": lambda bn: setattr(bn, "momentum", 0.37),
    "cumulative": lambda bn: setattr(bn, "momentum", None),
    "eps": lambda bn: setattr(bn, "eps", 0.2),
    "frozen": lambda bn: bn.eval(),
}


def every_other_norm(module: nn.Module, change) -> None:  # type: ignore[no-untyped-def]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for bn in norms[::2]:
        change(bn)


@pytest.mark.parametrize("change", NORMS.values(), ids=NORMS.keys())
@backends
def test_batch_norms_keep_their_own_settings(backend: str, change) -> None:  # type: ignore[no-untyped-def]
    theirs, ours = stock.MixedOp(6, 1).double(), MixedOp(6, 1, backend=backend).double()
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        every_other_norm(module, change)
    for _ in range(3):
        x, weights = torch.randn(3, 6, 7, 5).double(), torch.rand(8).double()
        torch.testing.assert_close(ours(x, weights), theirs(x, weights), rtol=1e-10, atol=1e-10)
    assert_same(ours, theirs)


@backends
def test_norms_without_running_statistics(backend: str) -> None:
    def untracked(module: nn.Module) -> nn.Module:
        def change(bn: nn.BatchNorm2d) -> None:
            bn.track_running_stats = False
            bn.running_mean = bn.running_var = bn.num_batches_tracked = None

        every_other_norm(module, change)
        return module

    theirs = untracked(stock.MixedOp(6, 1).double())
    ours = untracked(MixedOp(6, 1, backend=backend).double())
    ours.load_state_dict(theirs.state_dict())
    for training in (True, False):
        x, weights = torch.randn(3, 6, 7, 5).double(), torch.rand(8).double()
        out, expected = ours.train(training)(x, weights), theirs.train(training)(x, weights)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("reduction", "reduction_prev"), [(False, False), (True, False), (False, True)])
@backends
def test_cell_is_the_stock_cell(backend: str, reduction: bool, reduction_prev: bool) -> None:
    theirs = stock.Cell(10, 12, 6, reduction, reduction_prev).double()
    ours = Cell(10, 12, 6, reduction, reduction_prev, backend=backend).double()
    ours.load_state_dict(theirs.state_dict())
    s0 = torch.randn(2, 10, *((16, 12) if reduction_prev else (8, 6))).double()
    s1, weights = torch.randn(2, 12, 8, 6).double(), torch.rand(14, 8).double()
    for module in (theirs, ours):
        module(s0, s1, weights).square().sum().backward()
    assert_same(ours, theirs)


def test_modules_survive_deepcopy_and_pickle() -> None:
    network = DartsSupernet(4, 3, 5)
    x = torch.randn(2, 3, 8, 8)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other.train()(x), network.train()(x))
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(1.5)
        assert not torch.allclose(other(x), network(x))
        other.load_state_dict(network.state_dict())


def test_functional_call_uses_the_given_parameters() -> None:
    edge = MixedOp(4, 1)
    given = {name: p.detach() * 2 for name, p in edge.named_parameters()}
    x, weights = torch.randn(2, 4, 6, 6), torch.rand(8)
    out = torch.func.functional_call(edge, given, (x, weights))
    doubled = copy.deepcopy(edge)
    doubled.load_state_dict(given, strict=False)
    torch.testing.assert_close(out, doubled(x, weights))


def test_compiles_with_running_statistics() -> None:
    theirs, ours = stock.MixedOp(6, 2).double(), MixedOp(6, 2, backend="cpu").double()
    ours.load_state_dict(theirs.state_dict())
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x, weights = torch.randn(3, 6, 8, 6).double(), torch.rand(8, dtype=torch.float64, requires_grad=True)
        out = compiled(x, weights)
        torch.testing.assert_close(out, theirs(x, weights), rtol=1e-10, atol=1e-10)
        out.square().sum().backward()
    assert_same_buffers(ours, theirs)


def assert_same_buffers(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("unknown", ["sep_conv_9x9", "relu_conv_bn", ""])
def test_unknown_candidates_are_refused(unknown: str) -> None:
    with pytest.raises(ValueError, match="unknown candidate operation"):
        MixedOp(4, 1, candidates=[unknown])


def test_a_factorised_reduce_needs_even_channels() -> None:
    with pytest.raises(ValueError, match="even number of output channels, got 5"):
        MixedOp(5, 2)


def test_candidates_in_any_order_with_repetition() -> None:
    names = ("skip_connect", "sep_conv_3x3", "sep_conv_3x3", "none", "avg_pool_3x3")
    ours = MixedOp(4, 2, names, affine=True, backend="cpu").double()
    plain = MixedOp(4, 2, names, affine=True, backend="reference").double()
    plain.load_state_dict(ours.state_dict())
    x, weights = torch.randn(2, 4, 9, 9).double(), torch.rand(5).double()
    expected: Tensor = sum(w * op(x) for w, op in zip(weights, plain._ops, strict=True))  # type: ignore[assignment]
    torch.testing.assert_close(ours(x, weights), expected, rtol=1e-10, atol=1e-10)


def test_genotype_reads_alpha() -> None:
    network = DartsSupernet(4, 3, 5)
    with torch.no_grad():
        network.alphas_normal.zero_()
        network.alphas_normal[:, DARTS_CANDIDATES.index("sep_conv_5x5")] = 1
        network.alphas_normal[:, DARTS_CANDIDATES.index("none")] = 9
    genotype = network.genotype()
    assert all(op == "sep_conv_5x5" for node in genotype.normal.nodes for op, _ in node)
