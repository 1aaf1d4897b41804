"""Auto-DeepLab's genotypes: paths through the trellis, decoding, files, pictures."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, FancyBboxPatch

from fastnas.genotype import (
    AUTO_DEEPLAB,
    DARTS_V2,
    NAMED_PATHS,
    AutoDeepLabGenotype,
    CellGenotype,
    GenotypeError,
    best_path,
    decode_auto_deeplab,
    decode_darts,
    dumps,
    load,
    named_path,
    save,
)
from fastnas.genotype.network import log_transitions
from fastnas.genotype.trellis import PATH, draw_auto_deeplab, trellis_figure
from fastnas.ops import DARTS_CANDIDATES


def test_the_published_architecture() -> None:
    """As the authors' definition lists it (research/deeplab/core/nas_network.py), inputs named as ours."""
    short = " | ".join(" ".join(f"{op}:{source}" for op, source in node) for node in AUTO_DEEPLAB.cell.nodes)
    assert short.replace("_conv_", "") == (
        "dil5x5:0 sep3x3:1 | sep3x3:0 dil3x3:1 | sep3x3:3 sep3x3:0 | sep5x5:4 sep5x5:2 | sep5x5:3 dil5x5:5"
    )
    assert AUTO_DEEPLAB.cell.concat == (2, 3, 4, 5, 6)
    assert AUTO_DEEPLAB.path == (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)


@st.composite
def betas(draw: st.DrawFn) -> list[list[list[float]]]:
    """β of small trellises: ordinary values, some whose probabilities underflow, and few, so that paths tie."""
    values = draw(
        st.sampled_from([st.floats(-3, 3), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0]), st.just(-5000.0)])
    )
    scales = draw(st.integers(1, 4))
    ways = st.lists(values, min_size=3, max_size=3)
    layers = st.lists(st.lists(ways, min_size=scales, max_size=scales), min_size=1, max_size=6)
    return draw(layers)


def score(path: tuple[int, ...], beta: list[list[list[float]]]) -> float:
    """The logarithm of a path's probability, by torch; -inf where it jumps."""
    total, before = 0.0, 0
    for table, scale in zip(beta, path, strict=True):
        targets = [t for t in (before - 1, before, before + 1) if 0 <= t < len(table)]
        if scale not in targets:
            return -math.inf
        ways = torch.tensor([table[before][t - before + 1] for t in targets], dtype=torch.float64)
        total += float(ways.log_softmax(0)[targets.index(scale)])
        before = scale
    return total


@given(betas())
@settings(max_examples=150, deadline=None)
def test_the_best_path_is_the_best_of_all_paths(beta: list[list[list[float]]]) -> None:
    found = best_path(beta)
    best = max(score(path, beta) for path in itertools.product(range(len(beta[0])), repeat=len(beta)))
    assert math.isfinite(best)
    assert score(found, beta) == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_a_path_that_is_alone_the_best_is_found() -> None:
    """Probabilities that a greedy choice gets wrong: the likeliest first step leads to unlikely ones."""
    beta = np.zeros((2, 3, 3))
    beta[0, 0, 2] = math.log(1.5)
    beta[1, 0, 1] = 5.0
    assert best_path(beta) == (0, 0)


def test_of_equal_paths_the_finest_wins() -> None:
    # At the outer scales the ways are fewer, hence each is likelier.
    assert best_path(np.zeros((5, 4, 3))) == (0, 0, 0, 0, 0)


def test_probabilities_are_those_of_the_ways_that_exist() -> None:
    beta = torch.randn(6, 4, 3)
    found = torch.tensor(log_transitions(beta), dtype=torch.float64).exp()
    expected = beta.double()
    expected[:, 0, 0] = expected[:, 3, 2] = -math.inf
    torch.testing.assert_close(found, expected.softmax(-1))
    beta[:, 0, 0] = math.nan  # a way that does not exist
    torch.testing.assert_close(torch.tensor(log_transitions(beta), dtype=torch.float64).exp(), found)


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 2), (5, 4, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"β must be \(layers, scales, 3\), got {shape[0]} layers of"):
        best_path(np.zeros(shape))


@pytest.mark.parametrize("beta", [[[[0.0] * 3] * 2, [[0.0] * 3]], [[[0.0] * 3], []]], ids=["ragged", "empty layer"])
def test_ragged_tables_are_refused(beta: list[list[list[float]]]) -> None:
    with pytest.raises(ValueError, match="β must be"):
        best_path(beta)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    beta = np.zeros((3, 4, 3))
    beta[1, 2, 0] = value
    with pytest.raises(ValueError, match=r"β must be finite numbers, got .* at layer 1, scale 2"):
        best_path(beta)


def test_both_levels_are_decoded_and_none_is_never_kept() -> None:
    alpha = np.random.default_rng(0).dirichlet(np.ones(8), 20)
    alpha[:, DARTS_CANDIDATES.index("none")] = 1.0
    beta = np.random.default_rng(1).normal(size=(12, 4, 3))
    genotype = decode_auto_deeplab(alpha, beta, DARTS_CANDIDATES)
    assert genotype == AutoDeepLabGenotype(decode_darts(alpha, alpha, DARTS_CANDIDATES, 5).normal, best_path(beta))
    assert [len(node) for node in genotype.cell.nodes] == [2] * 5
    assert "none" not in dumps(genotype)


def test_a_path_beyond_the_coarsest_scale_is_refused() -> None:
    beta = np.zeros((5, 5, 3))
    beta[:, :, 2] = 9
    with pytest.raises(ValueError, match="layer 3 of the path is at scale 4; expected a scale from 2 to 3"):
        decode_auto_deeplab(np.ones((20, 8)), beta, DARTS_CANDIDATES)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("deeplabv3", (0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2)),
        ("conv_deconv", (0, 1, 1, 2, 2, 3, 2, 2, 1, 1, 0, 0)),
        ("stacked_hourglass", (1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0)),
    ],
)
def test_named_paths_of_twelve_layers(name: str, path: tuple[int, ...]) -> None:
    assert named_path(name) == path


@pytest.mark.parametrize("name", NAMED_PATHS)
def test_named_paths_of_any_number_of_layers(name: str) -> None:
    """Each is a path, of the length asked for, and from some length on has the shape that gives it its name."""
    for layers in range(1, 80):
        path = AutoDeepLabGenotype(AUTO_DEEPLAB.cell, named_path(name, layers)).path
        assert len(path) == layers
        if name == "deeplabv3":
            assert list(path) == sorted(path)
            assert path[-1] == min(layers - 1, 2)
        else:
            assert path[-1] == 0
            peaks = sum(scale == 3 for scale, _ in itertools.groupby(path))
            if layers >= 12:
                assert peaks == (2 if name == "stacked_hourglass" else 1)


def test_unknown_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="a path named deeplabv3, conv_deconv, stacked_hourglass, got 'unet'"):
        named_path("unet")
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        named_path("deeplabv3", 0)


@pytest.mark.parametrize("path", [AUTO_DEEPLAB.path, (0,), named_path("stacked_hourglass", 30)])
def test_files_give_back_what_was_saved(tmp_path: Path, path: tuple[int, ...]) -> None:
    genotype = AutoDeepLabGenotype(AUTO_DEEPLAB.cell, path)
    save(genotype, tmp_path / "g.json")
    assert load(tmp_path / "g.json", AutoDeepLabGenotype) == genotype
    assert json.loads(dumps(genotype))["path"] == list(path)


WHOLE = json.loads(dumps(AUTO_DEEPLAB))

BAD = {
    "a DARTS file": (json.loads(dumps(DARTS_V2)), "expected kind 'auto-deeplab', got 'darts'"),
    "version": (WHOLE | {"version": 2}, "expected version 1, got 2"),
    "no cell": (WHOLE | {"cell": None}, "cell: expected an object with lists 'nodes' and 'concat', got nothing"),
    "none": (WHOLE | {"cell": {"nodes": [[["none", 0]]], "concat": [2]}}, "cell: node 0 has operation 'none'"),
    "no path": ({k: v for k, v in WHOLE.items() if k != "path"}, "path: expected a list of whole numbers, got nothing"),
    "text": (WHOLE | {"path": "0012"}, "path: expected a list of whole numbers, got '0012'"),
    "truth": (WHOLE | {"path": [0, True]}, "path: expected a list of whole numbers, got [0, True]"),
    "empty": (WHOLE | {"path": []}, "the path has no layers; expected at least one"),
    "start": (WHOLE | {"path": [2, 2]}, "layer 0 of the path is at scale 2; expected a scale from 0 to 1"),
    "jump": (WHOLE | {"path": [0, 1, 3]}, "layer 2 of the path is at scale 3; expected a scale from 0 to 2"),
    "outside": (WHOLE | {"path": [1, 2, 3, 4]}, "layer 3 of the path is at scale 4; expected a scale from 2 to 3"),
    "negative": (WHOLE | {"path": [0, -1]}, "layer 1 of the path is at scale -1; expected a scale from 0 to 1"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_get_one_sentence_with_their_name(tmp_path: Path, data: object, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(GenotypeError) as error:
        load(path, AutoDeepLabGenotype)
    assert str(error.value) == f"{path}: {message}" or str(error.value).startswith(f"{path}: {message};")


@given(
    st.lists(st.integers(-1, 5) | st.booleans() | st.floats() | st.text(max_size=2), max_size=6) | st.text(max_size=3)
)
@settings(max_examples=100, deadline=None)
def test_garbage_in_a_path_is_never_more_than_a_bad_genotype(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "g.json"
    path.write_text(json.dumps(WHOLE | {"path": value}))
    try:
        genotype = load(path, AutoDeepLabGenotype)
    except GenotypeError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert list(genotype.path) == value


def test_a_darts_reader_says_that_it_got_the_other_kind(tmp_path: Path) -> None:
    save(AUTO_DEEPLAB, tmp_path / "g.json")
    with pytest.raises(GenotypeError, match="expected kind 'darts', got 'auto-deeplab'"):
        load(tmp_path / "g.json")


PICTURES = [AUTO_DEEPLAB.path, (0,), *(named_path(name, layers) for name in NAMED_PATHS for layers in (2, 12, 24))]


@pytest.mark.parametrize("path", PICTURES)
@pytest.mark.parametrize("with_beta", [False, True])
def test_pictures_show_the_path_and_nothing_overlaps(path: tuple[int, ...], with_beta: bool) -> None:
    figure = trellis_figure(path, "Network", np.zeros((len(path), 4, 3)) if with_beta else None)
    axes, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    circles = [p for p in axes.patches if isinstance(p, Circle)]
    chosen = [p.center for p in circles if p.get_facecolor() == matplotlib_color(PATH)]
    assert chosen == [pytest.approx((0.95 * column, -0.9 * scale)) for column, scale in enumerate((0, *path))]
    assert len(circles) == sum(min(column + 1, 4) for column in range(len(path) + 1))
    texts = [t.get_window_extent(renderer) for t in axes.texts]
    shapes = [p.get_window_extent(renderer) for p in axes.patches]
    boxes = [p.get_window_extent(renderer) for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert sum(text.overlaps(box) for text in texts for box in boxes) == 1
    assert not any(a.overlaps(b) for a, b in itertools.combinations(texts, 2))
    assert sum(text.overlaps(shape) for text in texts for shape in shapes) == 1
    for extent in texts + shapes:
        assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 < extent.y1 <= figure.bbox.y1


def matplotlib_color(name: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    return to_rgba(name)


def test_ways_are_as_wide_as_they_are_probable() -> None:
    """Lines in the order of layers, scales, targets: the first two leave the stem."""
    beta = np.zeros((2, 4, 3))
    beta[0, 0, 1:] = math.log(0.2), math.log(0.8)
    lines = trellis_figure((1, 0), "Network", beta).axes[0].lines
    band, same, down = lines[:3]
    assert band.get_linewidth() > down.get_linewidth()
    assert [same.get_linewidth(), down.get_linewidth()] == pytest.approx([1.5, 4.5])
    assert [same.get_alpha(), down.get_alpha()] == pytest.approx([0.12 + 0.88 * p for p in (0.2, 0.8)])


@pytest.mark.parametrize("shape", [(11, 4, 3), (12, 3, 3)])
def test_strengths_of_another_trellis_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"β must be \(12, 4, 3\), got \({shape[0]}, {shape[1]}, 3\)"):
        trellis_figure(AUTO_DEEPLAB.path, "Network", np.zeros(shape))


def test_what_is_no_path_is_not_drawn() -> None:
    with pytest.raises(GenotypeError, match="layer 1 of the path is at scale 2"):
        trellis_figure((0, 2), "Network")


def test_picture_files_are_the_same_every_time(tmp_path: Path) -> None:
    beta = np.random.default_rng(0).normal(size=(12, 4, 3))
    first, second = (draw_auto_deeplab(AUTO_DEEPLAB, tmp_path / name, beta) for name in ("first", "second"))
    assert [f.name for f in first] == [
        f"first-{part}" for part in ("cell.svg", "cell.png", "network.svg", "network.png")
    ]
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_a_cell_of_another_shape_is_drawn(tmp_path: Path) -> None:
    cell = CellGenotype(((("skip_connect", 0),),), (2,))
    assert len(draw_auto_deeplab(AutoDeepLabGenotype(cell, (0,)), tmp_path / "small")) == 4
