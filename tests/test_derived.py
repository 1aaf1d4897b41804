"""Derived networks: the published parameter counts, and what the parts do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastnas.genotype import DARTS_V1, DARTS_V2, CellGenotype, Genotype
from fastnas.nn import DartsNetwork
from fastnas.nn.derived import AuxiliaryHead, DerivedCell, drop_path
from fastnas.nn.operations import FactorizedReduce, ReLUConvBN
from fastnas.ops import CANDIDATES


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


def test_parameters_have_the_names_of_the_authors_code() -> None:
    cifar = set(DartsNetwork(DARTS_V2, 4, 3, 5, auxiliary=True).state_dict())
    imagenet = set(DartsNetwork(DARTS_V2, 4, 3, 5, auxiliary=True, stem="imagenet").state_dict())
    cell = {
        "cells.0.preprocess0.op.1.weight",
        "cells.0._ops.0.op.1.weight",
        "cells.0._ops.0.op.7.running_mean",
        "cells.2.preprocess0.conv_2.weight",
    }
    head = {f"auxiliary_head.{name}.weight" for name in ("features.2", "features.3", "features.5", "classifier")}
    assert cifar >= cell | head | {"stem.0.weight", "stem.1.weight", "auxiliary_head.features.6.weight"}
    assert imagenet >= head | {
        "stem0.0.weight",
        "stem0.3.weight",
        "stem1.1.weight",
        "cells.0.preprocess0.conv_1.weight",
    }
    assert "auxiliary_head.features.6.weight" not in imagenet


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


def test_without_an_auxiliary_head_training_gives_logits_alone() -> None:
    assert DartsNetwork(DARTS_V1, 4, 3, 5, in_channels=1)(torch.randn(2, 1, 8, 8)).shape == (2, 5)


def test_the_auxiliary_head_reads_the_second_reduction() -> None:
    network = DartsNetwork(DARTS_V1, 4, 7, 3, auxiliary=True)
    seen: list[torch.Tensor] = []
    network.cells[4].register_forward_hook(lambda _, __, out: seen.append(out))
    network.auxiliary_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.randn(2, 3, 8, 8))
    assert seen[0] is seen[1]


@pytest.mark.parametrize(
    ("layers", "stem", "sizes"),
    [
        (6, "cifar", [(16, 16)] * 2 + [(32, 8)] * 2 + [(64, 4)] * 2),
        (8, "cifar", [(16, 16)] * 2 + [(32, 8)] * 3 + [(64, 4)] * 3),
        (4, "imagenet", [(16, 2), (32, 1), (64, 1), (64, 1)]),
    ],
)
def test_cells_reduce_at_a_third_and_two_thirds(layers: int, stem: str, sizes: list[tuple[int, int]]) -> None:
    network = DartsNetwork(DARTS_V1, 4, layers, 3, stem=stem)
    seen: list[tuple[int, int]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda _, __, out: seen.append((out.shape[1], out.shape[2])))
    network(torch.randn(2, 3, 16, 16))
    assert seen == sizes


def test_the_first_cell_follows_a_reduction_after_the_imagenet_stem_only() -> None:
    cifar, imagenet = (DartsNetwork(DARTS_V1, 4, 3, 5, stem=stem) for stem in ("cifar", "imagenet"))
    assert isinstance(cifar.cells[0].preprocess0, ReLUConvBN)
    assert isinstance(imagenet.cells[0].preprocess0, FactorizedReduce)
    shapes = [tuple(s.shape) for s in imagenet._stems(torch.randn(2, 3, 32, 32))]
    assert shapes == [(2, 4, 8, 8), (2, 4, 4, 4)]


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


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("operation", [name for name in CANDIDATES if name != "none"])
def test_drop_path_drops_every_edge_but_identities(operation: str, reduction: bool) -> None:
    genotype = CellGenotype((((operation, 0),),), (2,))
    cell = DerivedCell(genotype, 4, 4, 4, reduction, reduction_prev=False)
    x = torch.randn(64, 4, 4, 4)
    dropped = (cell(x, x, 0.5) == 0).flatten(1).all(1)
    if operation == "skip_connect" and not reduction:
        assert not dropped.any()
    else:
        assert 10 < dropped.sum() < 54


def test_drop_path_follows_its_attribute_and_the_mode() -> None:
    network = DartsNetwork(DARTS_V1, 4, 3, 5, drop_path=0.5)
    x = torch.randn(2, 3, 8, 8)

    def repeats() -> bool:
        return torch.equal(network(x), network(x))

    assert not repeats()
    network.drop_path = 0.0
    assert repeats()
    network.drop_path = 0.5
    network.eval()
    assert repeats()


@pytest.mark.parametrize(("stem", "size", "stride"), [("cifar", 8, 3), ("cifar", 10, 3), ("imagenet", 7, 2)])
def test_the_auxiliary_head_is_the_published_one_where_that_works(stem: str, size: int, stride: int) -> None:
    head = AuxiliaryHead(16, 5, stem).eval()
    x = torch.randn(2, 16, size, size)
    pool = nn.AvgPool2d(5, stride, 0, count_include_pad=False)
    published = nn.Sequential(nn.ReLU(), pool, *head.features[2:], nn.Flatten(), head.classifier)
    torch.testing.assert_close(head(x), published(x))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 8), (14, 14), (16, 5)])
def test_the_auxiliary_head_takes_any_size(stem: str, size: tuple[int, int]) -> None:
    assert AuxiliaryHead(16, 5, stem)(torch.randn(2, 16, *size)).shape == (2, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"num_classes": -1}, "num_classes must be at least 1, got -1"),
        ({"drop_path": 1.0}, "drop_path must be at least 0 and below 1, got 1.0"),
        ({"drop_path": float("nan")}, "drop_path must be at least 0 and below 1, got nan"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"stem": "imagenet", "channels": 5}, "channels must be even with the imagenet stem, got 5"),
        ({"stem": "mnist"}, "stem must be cifar or imagenet, got 'mnist'"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DartsNetwork(DARTS_V1, **({"channels": 4, "layers": 3, "num_classes": 5} | change))  # type: ignore[arg-type]
