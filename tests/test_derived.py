"""Derived networks: the published parameter counts, and what the parts do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastnas.genotype import DARTS_V1, DARTS_V2, CellGenotype, Genotype
from fastnas.nn import DartsNetwork
from fastnas.nn.derived import AuxiliaryHead, DerivedCell, drop_path


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("genotype", "plain", "auxiliary", "imagenet"),
    [(DARTS_V1, 3_169_414, 3_645_840, 4_510_432), (DARTS_V2, 3_349_342, 3_825_768, 4_718_752)],
    ids=["V1", "V2"],
)
def test_parameter_counts_are_the_published_ones(genotype: Genotype, plain: int, auxiliary: int, imagenet: int) -> None:
    assert count(DartsNetwork(genotype, 36, 20, 10)) == plain
    assert count(DartsNetwork(genotype, 36, 20, 10, auxiliary=True)) == auxiliary
    assert count(DartsNetwork(genotype, 48, 14, 1000, stem="imagenet")) == imagenet


@pytest.mark.parametrize(
    ("stem", "size"), [("cifar", 32), ("cifar", 17), ("cifar", 1), ("imagenet", 64), ("imagenet", 33)]
)
def test_any_size_and_the_auxiliary_head_in_training_only(stem: str, size: int) -> None:
    network = DartsNetwork(DARTS_V2, 8, 5, 7, auxiliary=True, drop_path=0.3, stem=stem)
    x = torch.randn(2, 3, size, size)
    logits, auxiliary = network(x)
    assert logits.shape == auxiliary.shape == (2, 7)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(x).shape == (2, 7)


def test_cells_reduce_at_a_third_and_two_thirds() -> None:
    network = DartsNetwork(DARTS_V1, 4, 6, 3)
    sizes: list[tuple[int, ...]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 16, 16))
    assert sizes == [(16, 16, 16)] * 2 + [(32, 8, 8)] * 2 + [(64, 4, 4)] * 2


def test_a_cell_sums_what_its_genotype_says() -> None:
    genotype = CellGenotype(
        ((("skip_connect", 0), ("skip_connect", 1)), (("avg_pool_3x3", 2), ("skip_connect", 0))), (3, 2)
    )
    cell = DerivedCell(genotype, 6, 6, 4, reduction=False, reduction_prev=False)
    a, b = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)
    s0, s1 = cell.preprocess0(a), cell.preprocess1(b)
    node = s0 + s1
    expected = torch.cat([F.avg_pool2d(node, 3, 1, 1, count_include_pad=False) + s0, node], 1)
    torch.testing.assert_close(cell(a, b, 0.0), expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    x = torch.ones(20_000, 2, 1, 2)
    out = drop_path(x, 0.25)
    assert set(out.flatten().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert (out == out[:, :1, :1, :1]).all()
    assert abs(out.mean().item() - 1) < 0.02


def test_drop_path_spares_identities_and_evaluation() -> None:
    skips = CellGenotype(((("skip_connect", 0), ("skip_connect", 1)),), (2,))
    cell = DerivedCell(skips, 4, 4, 4, reduction=False, reduction_prev=False)
    x = torch.randn(4, 4, 3, 3)
    torch.testing.assert_close(cell(x, x, 0.9), cell(x, x, 0.0))
    network = DartsNetwork(DARTS_V1, 4, 3, 5, drop_path=0.9).eval()
    image = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(network(image), network(image))


@pytest.mark.parametrize(("stem", "size", "stride"), [("cifar", 8, 3), ("imagenet", 7, 2)])
def test_the_auxiliary_head_is_the_published_one_at_the_published_size(stem: str, size: int, stride: int) -> None:
    head = AuxiliaryHead(16, 5, stem).eval()
    x = torch.randn(2, 16, size, size)
    published = nn.Sequential(
        nn.ReLU(), nn.AvgPool2d(5, stride, 0, count_include_pad=False), head.features, nn.Flatten()
    )
    torch.testing.assert_close(head(x), head.classifier(published(x)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"num_classes": -1}, "num_classes must be at least 1, got -1"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1, got 1.0"),
        ({"stem": "mnist"}, "stem must be cifar or imagenet, got 'mnist'"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DartsNetwork(DARTS_V1, **({"channels": 4, "layers": 3, "num_classes": 5} | change))  # type: ignore[arg-type]
