"""The network of an Auto-DeepLab genotype: published parameter counts, sizes along the path, a training step."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastnas.genotype import AUTO_DEEPLAB, NAMED_PATHS, AutoDeepLabGenotype, CellGenotype, named_path
from fastnas.nn import AutoDeepLabNetwork
from fastnas.nn.auto_deeplab import DenseAtrousConv
from fastnas.nn.deeplab_head import ASPP
from fastnas.ops import CANDIDATES


@pytest.mark.parametrize(("filters", "parameters"), [(20, 10_147_427), (32, 21_622_451), (48, 44_424_691)])
def test_parameter_counts_are_the_published_ones(filters: int, parameters: int) -> None:
    with torch.device("meta"):
        network = AutoDeepLabNetwork(AUTO_DEEPLAB, filters, 19)
    assert sum(p.numel() for p in network.parameters()) == parameters


def step(network: AutoDeepLabNetwork, height: int, width: int) -> None:
    """One step of training: every parameter has a gradient, none becomes infinite, some change."""
    before = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    classes = network.decoder.classifier.out_channels
    logits = network(torch.randn(2, 3, height, width))
    assert logits.shape == (2, classes, height, width)
    F.cross_entropy(logits, torch.randint(classes, (2, height, width))).backward()
    optimizer.step()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert p.isfinite().all(), name
    assert any(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(("height", "width"), [(33, 65), (32, 48), (37, 50), (1, 1), (2, 7)])
def test_the_published_network_trains_at_any_size(height: int, width: int) -> None:
    step(AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 5, drop_path=0.2), height, width)


@pytest.mark.parametrize("layers", [1, 2, 5, 12])
@pytest.mark.parametrize("name", NAMED_PATHS)
def test_named_paths_train(name: str, layers: int) -> None:
    step(AutoDeepLabNetwork(AutoDeepLabGenotype(AUTO_DEEPLAB.cell, named_path(name, layers)), 2, 3), 29, 34)


@pytest.mark.parametrize("atrous", ["dense", "separable"])
@pytest.mark.parametrize("operation", [name for name in CANDIDATES if name != "none"])
def test_every_operation_trains_down_and_up(operation: str, atrous: str) -> None:
    cell = CellGenotype((((operation, 0), (operation, 1)), ((operation, 2), (operation, 0))), (2, 3))
    step(AutoDeepLabNetwork(AutoDeepLabGenotype(cell, (1, 2, 1, 0)), 3, 3, atrous=atrous), 19, 22)


def test_cells_work_at_the_scales_of_the_path() -> None:
    network = AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3)
    seen: list[tuple[int, ...]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 70, 45))
    sizes = [(18, 12), (9, 6), (5, 3), (3, 2)]
    assert seen == [(10 << level, *sizes[level]) for level in AUTO_DEEPLAB.path]


def test_cells_read_the_two_before_them_and_the_first_the_stem() -> None:
    network = AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3).eval()
    outs: list[torch.Tensor] = []
    inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for module in (network.stem0, network.stem1, *network.cells):
        module.register_forward_hook(lambda _, __, out: outs.append(out))
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda _, args: inputs.append(args[:2]))
    network(torch.randn(1, 3, 65, 65))
    assert [out.shape[1] for out in outs[:2]] == [64, 128]
    for i, ((s0, s1), (before, level)) in enumerate(
        zip(inputs, itertools.pairwise((0, *AUTO_DEEPLAB.path)), strict=True)
    ):
        size = [17, 9, 5, 3][min(before, level)]
        for found, source in ((s0, outs[i]), (s1, outs[i + 1])):
            torch.testing.assert_close(found, F.interpolate(source, (size, size), mode="bilinear", align_corners=True))


@pytest.mark.parametrize(("layers", "index"), [(12, 2), (3, 2), (2, 1)])
def test_the_decoder_reads_the_third_cell(layers: int, index: int) -> None:
    genotype = AutoDeepLabGenotype(AUTO_DEEPLAB.cell, AUTO_DEEPLAB.path[:layers])
    network = AutoDeepLabNetwork(genotype, 2, 3).eval()
    seen: list[torch.Tensor] = []
    network.cells[index].register_forward_hook(lambda _, __, out: seen.append(out))
    network.decoder.low.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.randn(1, 3, 33, 33))
    assert seen[0] is seen[1]


@pytest.mark.parametrize("kernel", [3, 5])
def test_dense_atrous_convolutions_are_the_papers(kernel: int) -> None:
    x = torch.randn(2, 4, 9, 8)
    same, down = (DenseAtrousConv(4, kernel, stride).eval() for stride in (1, 2))
    expected = same.bn(F.conv2d(x.relu(), same.conv.weight, padding=kernel - 1, dilation=2))
    torch.testing.assert_close(same(x), expected)
    small = F.interpolate(x.relu(), (5, 4), mode="bilinear", align_corners=True)
    torch.testing.assert_close(down(x), down.bn(F.conv2d(small, down.conv.weight, padding=kernel // 2)))


@pytest.mark.parametrize(("level", "rates"), [(0, [24, 48, 72]), (1, [12, 24, 36]), (2, [6, 12, 18]), (3, [3, 6, 9])])
def test_pyramid_rates_follow_the_scale(level: int, rates: list[int]) -> None:
    convolutions = [m for m in ASPP(2, level).branches.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.dilation[0] for conv in convolutions] == [1, *rates]


def test_drop_path_grows_with_depth_and_stops_in_eval() -> None:
    network = AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3, drop_path=0.6)
    seen: list[float] = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    network(torch.randn(2, 3, 17, 17))
    assert seen == pytest.approx([0.05 * (i + 1) for i in range(12)])
    seen.clear()
    network.eval()(torch.randn(1, 3, 17, 17))
    assert seen == [0.0] * 12


def test_training_on_a_single_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 images at once, got 1"):
        AutoDeepLabNetwork(AUTO_DEEPLAB, 2, 3)(torch.randn(1, 3, 17, 17))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 0}, "filters must be at least 1, got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": -1}, "in_channels must be at least 1, got -1"),
        ({"atrous": "full"}, "atrous must be dense or separable, got 'full'"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoDeepLabNetwork(AUTO_DEEPLAB, **({"filters": 2, "num_classes": 3} | change))  # type: ignore[arg-type]
