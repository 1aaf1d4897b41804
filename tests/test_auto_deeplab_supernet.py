"""The Auto-DeepLab supernet and its cells as modules, against the stock network that shares no code with them."""

from __future__ import annotations

import copy

import pytest
import stock_trellis
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastnas.nn import AutoDeepLabSupernet, TrellisCell

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["cpu", "reference"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def supernets(
    backend: str, memory: str = "fast", layers: int = 4, atrous: str = "separable"
) -> tuple[stock_trellis.Network, AutoDeepLabSupernet]:
    sizes = {"filters": 4, "steps": 2, "layers": layers, "num_classes": 5}
    theirs = stock_trellis.Network(**sizes, atrous=atrous).double()
    ours = AutoDeepLabSupernet(**sizes, memory=memory, backend=backend, atrous=atrous).double()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for a in (*theirs.arch_parameters(), *ours.arch_parameters()):
            a.mul_(500)
    return theirs, ours


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative where values are large."""
    return float(((actual - expected).abs() / expected.abs().clamp_min(1)).double().amax())


def assert_same(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-8) -> None:
    """The same parameters, gradients and buffers."""
    theirs_state, theirs_parameters = theirs.state_dict(), dict(theirs.named_parameters())
    assert ours.state_dict().keys() == theirs_state.keys()
    for name, a in ours.state_dict().items():
        assert error(a, theirs_state[name]) <= tolerance, name
    for name, a in ours.named_parameters():
        b = theirs_parameters[name]
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert error(a.grad, b.grad) <= tolerance, name


def test_parameter_counts_are_those_of_the_widely_used_implementation() -> None:
    for network in (AutoDeepLabSupernet(), stock_trellis.Network()):
        assert sum(p.numel() for p in network.weight_parameters()) == 11_570_580
        assert [p.numel() for p in network.arch_parameters()] == [160, 144]
        assert len(network.weight_parameters()) + 2 == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("atrous", "layers", "size"),
    [
        *(("separable", layers, size) for layers, size in ((1, (9, 8)), (2, (16, 30)), (4, (33, 45)))),
        *(("dense", layers, size) for layers, size in ((1, (9, 8)), (3, (33, 45)))),
    ],
)
@pytest.mark.parametrize(("backend", "memory"), [("reference", "fast"), ("cpu", "fast"), ("cpu", "lean")])
def test_it_trains_as_stock_does(backend: str, layers: int, size: tuple[int, int], memory: str, atrous: str) -> None:
    theirs, ours = supernets(backend, memory, layers, atrous)
    optimisers = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in (theirs, ours)]
    for _ in range(2):
        x, y = torch.randn(2, 3, *size).double(), torch.randint(5, (2, *size))
        for network, optimiser in zip((theirs, ours), optimisers, strict=True):
            optimiser.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimiser.step()
    assert_same(ours, theirs)
    x = torch.randn(1, 3, *size).double()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (64, 32), (33, 2)])
@backends
def test_it_takes_any_size(backend: str, size: tuple[int, int]) -> None:
    network = AutoDeepLabSupernet(2, 1, 3, 4, backend=backend)
    x = torch.randn(2, 3, *size, requires_grad=True)
    out = network(x)
    assert out.shape == (2, 4, *size)
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@backends
def test_one_image_trains_too(backend: str) -> None:
    """Stock PyTorch refuses, for want of batch statistics after image pooling."""
    network = AutoDeepLabSupernet(2, 1, 2, 4, backend=backend)
    before = copy.deepcopy(network.heads[0].conv_p[1].state_dict())
    network(torch.randn(1, 3, 33, 33)).sum().backward()
    after = network.heads[0].conv_p[1].state_dict()
    assert all(torch.equal(a, after[name]) for name, a in before.items())
    assert network.heads[0].conv_p[0].weight.grad is not None


@backends
def test_beta_leaves_out_ways_beyond_the_trellis(backend: str) -> None:
    network = AutoDeepLabSupernet(2, 1, 2, 4, backend=backend)
    network(torch.randn(2, 3, 33, 33)).square().sum().backward()
    unused = network.betas.grad == 0
    # Layer 0 leaves scale 4 only, layer 1 scales 4 and 8; scale 4 has no way to a finer one.
    assert unused[0, 1:].all()
    assert unused[1, 2:].all()
    assert unused[:, 0, 0].all()
    assert not unused[0, 0, 1:].any()
    assert not unused[1, 1].any()


def test_running_statistics_of_prev_prev_s_edges_move_once_a_way() -> None:
    cell = TrellisCell(6, (4, 6, 8), 4, steps=1, backend="reference")
    cell(
        torch.randn(2, 6, 5, 5),
        [torch.randn(2, 4, 9, 9), torch.randn(2, 6, 5, 5), torch.randn(2, 8, 3, 3)],
        *ways(1, 3),
    )
    counts = {name: int(t) for name, t in cell.state_dict().items() if name.endswith("num_batches_tracked")}
    assert {n for name, n in counts.items() if name.startswith("_ops")} == {3}
    assert {n for name, n in counts.items() if "preprocess" in name} == {1}


def ways(steps: int, count: int) -> tuple[Tensor, Tensor]:
    """α and β of a cell."""
    edges = sum(2 + step for step in range(steps))
    return torch.rand(edges, 8), torch.rand(count)


@pytest.mark.parametrize("widths", [(None, None, 8), (4, None, 8), (None, None, None)])
def test_a_cell_without_its_own_scale_is_refused(widths: tuple[int | None, ...]) -> None:
    with pytest.raises(ValueError, match="a cell needs a way from a finer or its own scale"):
        TrellisCell(6, widths, 4)


@pytest.mark.parametrize("argument", ["steps", "layers", "num_classes", "in_channels"])
def test_numbers_below_one_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        AutoDeepLabSupernet(**{argument: 0})


@pytest.mark.parametrize("filters", [0, 1, 3])
def test_odd_filters_are_refused(filters: int) -> None:
    with pytest.raises(ValueError, match=f"filters must be even and at least 2, got {filters}"):
        AutoDeepLabSupernet(filters)


def test_its_genotype_follows_alpha_and_beta() -> None:
    network = AutoDeepLabSupernet(4, 2, 3)
    with torch.no_grad():
        network.betas[0, 0, 2] = network.betas[1, 1, 2] = network.betas[2, 2, 0] = 9.0
        network.alphas[:, 4] = 5.0
        network.alphas[:, 0] = 9.0  # none does not compete
    genotype = network.genotype()
    assert genotype.path == (1, 2, 1)
    assert {name for node in genotype.cell.nodes for name, _ in node} == {"sep_conv_3x3"}
    assert len(genotype.cell.nodes) == 2
