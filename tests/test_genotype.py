"""Genotypes: decoding, files, pictures."""

from __future__ import annotations

import errno
import itertools
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.transforms import Bbox

from fastnas.genotype import DARTS_V1, DARTS_V2, CellGenotype, Genotype, GenotypeError, decode_darts, dumps, load, save
from fastnas.genotype.draw import cell_figure, draw_cells
from fastnas.ops import CANDIDATES, DARTS_CANDIDATES

OPERATIONS = [name for name in CANDIDATES if name != "none"]


@st.composite
def cells(draw: st.DrawFn) -> CellGenotype:
    nodes = tuple(
        tuple(draw(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, i + 1)), min_size=1, max_size=4)))
        for i in range(draw(st.integers(1, 5)))
    )
    concat = draw(st.lists(st.integers(2, len(nodes) + 1), min_size=1, max_size=4))
    return CellGenotype(nodes, tuple(concat))


genotypes = st.builds(Genotype, cells(), cells())


def flat(cell: CellGenotype) -> str:
    """A cell in the order of the published lists, shortened."""
    return " ".join(f"{op.removesuffix('_3x3')}:{source}" for node in cell.nodes for op, source in node)


def test_published_cells() -> None:
    """Copied from `cnn/genotypes.py` of the authors' code."""
    conv, skip, pool, average, dilated = "sep_conv", "skip_connect", "max_pool", "avg_pool", "dil_conv"
    assert flat(DARTS_V1.normal) == f"{conv}:1 {conv}:0 {skip}:0 {conv}:1 {skip}:0 {conv}:1 {conv}:0 {skip}:2"
    assert flat(DARTS_V1.reduce) == f"{pool}:0 {pool}:1 {skip}:2 {pool}:0 {pool}:0 {skip}:2 {skip}:2 {average}:0"
    assert flat(DARTS_V2.normal) == f"{conv}:0 {conv}:1 {conv}:0 {conv}:1 {conv}:1 {skip}:0 {skip}:0 {dilated}:2"
    assert flat(DARTS_V2.reduce) == f"{pool}:0 {pool}:1 {skip}:2 {pool}:1 {pool}:0 {skip}:2 {skip}:2 {pool}:1"
    assert {cell.concat for g in (DARTS_V1, DARTS_V2) for cell in (g.normal, g.reduce)} == {(2, 3, 4, 5)}


def strongest_by_brute_force(weights: np.ndarray, candidates: list[str], steps: int) -> list[set[tuple[str, int]]]:
    """Of all pairs of edges into a node, the first of those whose strongest candidates sum to most."""
    nodes, start = [], 0
    allowed = [k for k, name in enumerate(candidates) if name != "none"]
    for i in range(steps):
        rows = weights[start : start + i + 2]
        best = max(itertools.combinations(range(i + 2), 2), key=lambda pair: sum(rows[j, allowed].max() for j in pair))
        nodes.append({(candidates[max(allowed, key=lambda k, j=j: rows[j, k])], j) for j in best})
        start += i + 2
    return nodes


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "tied"])
@pytest.mark.parametrize("seed", range(20))
def test_decode_agrees_with_brute_force(seed: int, levels: int | None) -> None:
    random = np.random.default_rng(seed)
    steps = int(random.integers(1, 6))
    candidates = random.permutation(DARTS_CANDIDATES).tolist()
    shape = (steps * (steps + 3) // 2, 8)
    normal, reduce = (
        random.dirichlet(np.ones(8), shape[0]) if levels is None else random.integers(levels, size=shape)
        for _ in range(2)
    )
    genotype = decode_darts(normal, reduce, candidates, steps)
    for cell, weights in ((genotype.normal, normal), (genotype.reduce, reduce)):
        assert [set(node) for node in cell.nodes] == strongest_by_brute_force(weights, candidates, steps)
        assert cell.concat == tuple(range(2, 2 + steps))


def test_decode_takes_lists_arrays_and_tensors() -> None:
    weights = torch.rand(14, 8)
    tables = weights, weights.numpy(), weights.tolist()
    assert len({decode_darts(table, table, DARTS_CANDIDATES) for table in tables}) == 1


def test_decode_never_emits_none_and_resolves_ties_by_order() -> None:
    weights = [[0.9] + [0.1 / 7] * 7] * 14
    genotype = decode_darts(weights, weights, DARTS_CANDIDATES)
    assert genotype.normal.nodes == ((("max_pool_3x3", 0), ("max_pool_3x3", 1)),) * 4


def test_decode_lists_the_strongest_edge_first() -> None:
    weights = [[0.0] * 8 for _ in range(14)]
    weights[1][4] = 1.0
    assert decode_darts(weights, weights, DARTS_CANDIDATES).normal.nodes[0] == (
        ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0),
    )


@pytest.mark.parametrize("shape", [(13, 8), (14, 7), (0, 8)])
def test_decode_refuses_other_shapes(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"α must be \(14, 8\), got {shape[0]} rows"):
        decode_darts(np.ones(shape).tolist(), np.ones(shape).tolist(), DARTS_CANDIDATES)


def test_decode_refuses_nan() -> None:
    weights = np.ones((14, 8))
    weights[5, 2] = np.nan
    with pytest.raises(ValueError, match="α must be numbers, got NaN on edge 5"):
        decode_darts(np.ones((14, 8)), weights, DARTS_CANDIDATES)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (["none"], r"an operation besides none, got \['none'\]"),
        (["none", "conv_9x9"], "operation 'conv_9x9'; expected one of"),
    ],
)
def test_decode_refuses_candidates_it_cannot_use(candidates: list[str], message: str) -> None:
    weights = np.ones((14, len(candidates)))
    with pytest.raises(ValueError, match=message):
        decode_darts(weights, weights, candidates)


@given(genotypes)
@settings(max_examples=50, deadline=None)
def test_files_give_back_what_was_saved(tmp_path_factory: pytest.TempPathFactory, genotype: Genotype) -> None:
    path = tmp_path_factory.mktemp("genotype") / "g.json"
    save(genotype, path)
    assert load(path) == genotype
    assert [p.name for p in path.parent.iterdir()] == ["g.json"]


def test_files_are_plain_json_for_a_person() -> None:
    text = dumps(DARTS_V1)
    assert json.loads(text)["normal"]["nodes"][0] == [["sep_conv_3x3", 1], ["sep_conv_3x3", 0]]
    assert '      [["sep_conv_3x3", 1], ["sep_conv_3x3", 0]]' in text.splitlines()[6]


WHOLE = json.loads(dumps(DARTS_V2))


def changed(**change: object) -> str:
    return json.dumps(WHOLE | change)


def with_nodes(nodes: object, concat: object = (2,)) -> str:
    return changed(normal={"nodes": nodes, "concat": concat})


BAD = {
    "empty": (b"", "expected JSON"),
    "not JSON": (b"{", "expected JSON"),
    "binary": (b"\x89PNG\r\n\x00\xff", "expected JSON, got bytes that are no text (UTF-8) at 0"),
    "deep": (b"[" * 100_000, "brackets nested too deeply"),
    "deep in a cell": (dumps(DARTS_V1).replace("0]", "[" * 5000 + "]" * 5000 + "]", 1), "brackets nested too deeply"),
    "long number": (changed(version=0).replace("0", "1" * 5000, 1), "expected JSON"),
    "huge": (b" " * (2 << 20), "more than 1048576 bytes"),
    "list": (b"[]", "expected an object, got a list"),
    "no format": (b"{}", "expected format 'fastnas-genotype', got nothing"),
    "version": (changed(version=2).encode(), "expected version 1, got 2"),
    "version true": (changed(version=True), "expected version 1, got True"),
    "version text": (changed(version="1"), "expected version 1, got '1'"),
    "kind": (changed(kind="auto"), "expected kind 'darts', got 'auto'"),
    "no cell": (changed(normal=None), "normal: expected an object with lists 'nodes' and 'concat', got nothing"),
    "no cell at all": (json.dumps({k: v for k, v in WHOLE.items() if k != "reduce"}), "reduce: expected an object"),
    "no concat": (changed(normal={"nodes": []}), "normal: expected a list 'concat', got nothing"),
    "no nodes": (with_nodes([]), "normal: the cell has no nodes; expected at least one"),
    "operation": (with_nodes([[["conv_9x9", 0]]]), "normal: node 0 has operation 'conv_9x9'; expected one of max_pool"),
    "none": (with_nodes([[["none", 0]]]), "normal: node 0 has operation 'none'"),
    "source": (with_nodes([[["skip_connect", 2]]]), "node 0 reads state 2; expected a state from 0 to 1"),
    "negative": (with_nodes([[["skip_connect", -1]]]), "node 0 reads state -1"),
    "true": (
        with_nodes([[["skip_connect", True]]]),
        "node 0: expected [operation, source], got ['skip_connect', True]",
    ),
    "triple": (with_nodes([[["skip_connect", 0, 1]]]), "node 0: expected [operation, source]"),
    "no edges": (with_nodes([[]]), "node 0 has no operation"),
    "node": (with_nodes([3]), "node 0: expected a list of [operation, source], got a number"),
    "long operation": (with_nodes([[["x" * 100_000, 0]]]), "has operation 'xxx"),
    "long source": (with_nodes([[["skip_connect", 10**4000]]]), "reads state 1000"),
    "long concat": (with_nodes([[["skip_connect", 0]]], [0] * 100_000), "concat is [0, 0"),
    "concat": (with_nodes([[["skip_connect", 0]]], [7]), "concat is [7]; expected states from 2 to 2"),
    "concat of an input": (with_nodes([[["skip_connect", 0]]], [1]), "concat is [1]; expected states from 2 to 2"),
    "concat text": (with_nodes([[["skip_connect", 0]]], ["2"]), "whole numbers in concat"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_get_one_sentence_with_their_name(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GenotypeError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 250


@pytest.mark.parametrize(("name", "message"), [("missing.json", "No such file"), (".", "Is a directory")])
def test_what_is_no_file_gets_one_sentence(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        load(tmp_path / name)


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@settings(max_examples=150, deadline=None)
def test_garbage_is_never_more_than_a_bad_genotype(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "g.json"
    path.write_bytes(content)
    with pytest.raises(GenotypeError):
        load(path)


words = st.sampled_from([*OPERATIONS, "none", "nodes", "concat"]) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 7) | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


@given(values, values)
@settings(max_examples=150, deadline=None)
def test_garbage_in_a_cell_is_never_more_than_a_bad_genotype(
    tmp_path_factory: pytest.TempPathFactory, nodes: object, concat: object
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "g.json"
    path.write_text(with_nodes(nodes, concat))
    try:
        genotype = load(path)
    except GenotypeError as error:
        assert str(error).startswith(f"{path}: normal: ")  # noqa: PT017
    else:
        assert json.loads(dumps(genotype))["normal"] == {"nodes": nodes, "concat": concat}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "g.json"
    save(DARTS_V1, path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(DARTS_V2, path)
    assert load(path) == DARTS_V1
    assert [p.name for p in tmp_path.iterdir()] == ["g.json"]


def test_pictures_name_every_operation(tmp_path: Path) -> None:
    files = draw_cells(DARTS_V2, tmp_path / "v2")
    assert [f.name for f in files] == ["v2-normal.svg", "v2-normal.png", "v2-reduce.svg", "v2-reduce.png"]
    for f in files[1::2]:
        assert f.read_bytes().startswith(b"\x89PNG")
    comments = [c.strip() for c in files[0].read_text().split("<!--")[1:]]
    assert ET.parse(files[0]).getroot().tag.endswith("svg")
    for node in DARTS_V2.normal.nodes:
        for operation, _ in node:
            assert any(c.startswith(operation) for c in comments)


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first, second = (draw_cells(DARTS_V1, tmp_path / name) for name in ("first", "second"))
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def assert_legible(cell: CellGenotype) -> None:
    """Labels stand on their plates, clear of other labels, of states and of other edges, inside the picture."""
    figure = cell_figure(cell, "Cell")
    axes, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    labels = [t.get_window_extent(renderer) for t in axes.texts if t.get_text() in OPERATIONS]
    others = [t.get_window_extent(renderer) for t in axes.texts if t.get_text() not in OPERATIONS]
    boxes = [p.get_window_extent(renderer) for p in axes.patches if isinstance(p, FancyBboxPatch)]
    nodes = [p.get_window_extent(renderer) for p in axes.patches if isinstance(p, (Circle, Rectangle))]
    edges = [points(p) for p in axes.patches if isinstance(p, FancyArrowPatch)]
    assert len(labels) == len(edges) == sum(map(len, cell.nodes))
    plates = [box for box in boxes if any(holds(box, label) for label in labels)]
    assert len(plates) == len(labels)
    for plate in plates:
        assert holds(figure.bbox, plate)
        assert sum(plate.overlaps(other) for other in (*boxes, *nodes)) == 1
        assert not any(plate.overlaps(other) for other in others)
        assert sum(plate.count_contains(edge) > 0 for edge in edges) == 1


def points(edge: FancyArrowPatch) -> np.ndarray:
    """Points along an edge, a few pixels apart."""
    lines = edge.get_transform().transform_path(edge.get_path()).to_polygons(closed_only=False)
    along = np.linspace(0, 1, 300)[:, None]
    return np.concatenate([a + along * (b - a) for line in lines for a, b in itertools.pairwise(line)])


def holds(outer: Bbox, inner: Bbox) -> bool:
    return outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1


PAIR = (("sep_conv_3x3", 0), ("dil_conv_5x5", 0))


@pytest.mark.parametrize(
    "cell",
    [
        *(cell for g in (DARTS_V1, DARTS_V2) for cell in (g.normal, g.reduce)),
        CellGenotype((PAIR,) * 4, (2, 3, 4, 5)),
        CellGenotype((PAIR, (("max_pool_3x3", 2),) * 2, (("skip_connect", 3),) * 5), (4,)),
    ],
    ids=["V1", "V1-reduce", "V2", "V2-reduce", "one-source", "double-edges"],
)
def test_pictures_are_legible(cell: CellGenotype) -> None:
    assert_legible(cell)


@given(cells())
@settings(max_examples=15, deadline=None)
def test_pictures_of_any_cell_are_legible(cell: CellGenotype) -> None:
    assert_legible(cell)


def test_importing_loads_neither_torch_nor_matplotlib() -> None:
    modules = "sys, fastnas.genotype, fastnas.genotype.draw, fastnas.genotype.trellis"
    code = f"import {modules}; assert not {{'torch', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
