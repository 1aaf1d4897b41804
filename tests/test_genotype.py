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
from hypothesis import given, settings
from hypothesis import strategies as st

from fastnas.genotype import DARTS_V1, DARTS_V2, CellGenotype, Genotype, GenotypeError, decode_darts, dumps, load, save
from fastnas.genotype.draw import draw_cell, draw_cells
from fastnas.ops import CANDIDATES, DARTS_CANDIDATES

OPERATIONS = [name for name in CANDIDATES if name != "none"]


@st.composite
def cells(draw: st.DrawFn) -> CellGenotype:
    nodes = tuple(
        tuple(draw(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, i + 1)), min_size=1, max_size=4)))
        for i in range(draw(st.integers(1, 5)))
    )
    concat = draw(st.lists(st.integers(0, len(nodes) + 1), min_size=1, max_size=4))
    return CellGenotype(nodes, tuple(concat))


genotypes = st.builds(Genotype, cells(), cells())


def strongest_by_brute_force(weights: np.ndarray, steps: int) -> list[set[tuple[str, int]]]:
    """Of all pairs of edges into a node, the pair whose candidates' weights sum to most."""
    nodes, start = [], 0
    allowed = [k for k, name in enumerate(DARTS_CANDIDATES) if name != "none"]
    for i in range(steps):
        rows = weights[start : start + i + 2]
        best = max(itertools.combinations(range(i + 2), 2), key=lambda pair: sum(rows[j, allowed].max() for j in pair))
        nodes.append({(DARTS_CANDIDATES[max(allowed, key=lambda k, j=j: rows[j, k])], j) for j in best})
        start += i + 2
    return nodes


@pytest.mark.parametrize("seed", range(20))
def test_decode_agrees_with_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    normal, reduce = random.dirichlet(np.ones(8), 14), random.dirichlet(np.ones(8), 14)
    genotype = decode_darts(normal.tolist(), reduce.tolist(), DARTS_CANDIDATES)
    for cell, weights in ((genotype.normal, normal), (genotype.reduce, reduce)):
        assert [set(node) for node in cell.nodes] == strongest_by_brute_force(weights, 4)
        assert cell.concat == (2, 3, 4, 5)


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


def changed(**change: object) -> str:
    return json.dumps(json.loads(dumps(DARTS_V2)) | change)


def with_nodes(nodes: object, concat: object = (2,)) -> str:
    return changed(normal={"nodes": nodes, "concat": concat})


BAD = {
    "empty": (b"", "expected JSON"),
    "not JSON": (b"{", "expected JSON"),
    "binary": (b"\x89PNG\r\n\x00\xff", "expected JSON"),
    "deep": (b"[" * 100_000, "expected JSON"),
    "huge": (b" " * (2 << 20), "more than 1048576 bytes"),
    "list": (b"[]", "expected an object, got a list"),
    "no format": (b"{}", "expected format 'fastnas-genotype', got None"),
    "version": (changed(version=2).encode(), "expected version 1, got 2"),
    "kind": (changed(kind="auto"), "expected kind 'darts', got 'auto'"),
    "no cell": (changed(normal=None), "normal: expected an object with lists 'nodes' and 'concat', got nothing"),
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
    "concat": (with_nodes([[["skip_connect", 0]]], [7]), "concat is [7]; expected states from 0 to 2"),
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


@given(cells())
@settings(max_examples=10, deadline=None)
def test_any_cell_can_be_drawn(tmp_path_factory: pytest.TempPathFactory, cell: CellGenotype) -> None:
    assert all(f.stat().st_size for f in draw_cell(cell, "Cell", tmp_path_factory.mktemp("draw") / "cell"))


def test_pictures_need_no_global_matplotlib_state() -> None:
    code = "import sys, fastnas.genotype; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
