"""`fastnas bench roofline`: what it counts, and that it runs. Never how fast anything is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastnas import _C
from fastnas.bench import cell_multiply_adds, network_multiply_adds
from fastnas.cli import main
from fastnas.nn import Cell, DartsSupernet

pytestmark = pytest.mark.usefixtures("one_thread")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", "roofline", *map(str, words)])


def work(channels: int, size: int, stride: int) -> dict[str, tuple[float, float]]:
    return {name: (flops, moved) for name, flops, moved in _C.KernelCases(channels, size, stride).work()}


def test_multiply_adds_of_a_normal_cell() -> None:
    c, pixels = 16, 32 * 32
    three, five = 9 * c + c * c, 25 * c + c * c
    edge = 2 * three + 2 * five + three + five  # two stages of each separable convolution, one of each dilated
    expected = pixels * (14 * edge + 2 * 4 * c * c)
    assert cell_multiply_adds(Cell(4 * c, 4 * c, c, False, False).spec, [(32, 32)] * 2) == expected == 47_513_600


def test_multiply_adds_of_a_reduction_cell() -> None:
    c, pixels = 4, 5 * 5  # of 9×9 images, rounded up
    three, five, reduce = 9 * c + c * c, 25 * c + c * c, c * c
    strided = 3 * three + 3 * five
    before = 81 * (4 * c * c) + 81 * (4 * c * c)  # both inputs
    expected = before + pixels * (14 * strided + 8 * reduce)
    assert cell_multiply_adds(Cell(4 * c, 4 * c, c, True, False).spec, [(9, 9)] * 2) == expected


def test_the_search_network_needs_its_known_arithmetic() -> None:
    forward = 2 * network_multiply_adds(DartsSupernet(16, 8), (32, 32))
    assert 3 * forward / 1e9 == pytest.approx(1.80, abs=0.005)


def test_work_of_kernels() -> None:
    kernels = work(20, 8, 1)
    assert kernels["depthwise 3x3"] == (2 * 9 * 20 * 64, 4 * 20 * (8 * 16 + 9 + 64))
    assert kernels["dilated 5x5 input gradient"] == (2 * 25 * 20 * 64, 4 * 20 * (8 * 16 + 25 + 3 * 64))
    assert kernels["pointwise"] == (2 * 20 * 20 * 64, 4 * (2 * 20 * 64 + 20 * 20))
    assert kernels["pointwise with sums"][1] == 4 * (3 * 20 * 64 + 20 * 20)
    assert kernels["load"] == (0, 4 * 2 * 20 * 64)


def test_kernels_with_a_stride_count_the_pixels_of_their_result() -> None:
    kernels = work(16, 9, 2)
    assert kernels["depthwise 5x5 weight gradient"][0] == 2 * 25 * 16 * 25
    assert "pointwise" not in kernels


@pytest.mark.parametrize(("channels", "size", "stride"), [(20, 5, 1), (16, 7, 2), (3, 1, 1)])
def test_every_kernel_runs(channels: int, size: int, stride: int) -> None:
    cases = _C.KernelCases(channels, size, stride)
    for name, _, _ in cases.work():
        assert cases.seconds(name, 1e-6) > 0


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no kernel depthwise 9x9 at stride 2"):
        _C.KernelCases(16, 8, 2).seconds("depthwise 9x9", 1e-6)


def test_it_prints_tables_and_writes_json(tmp_path: Path) -> None:
    path = tmp_path / "roofline.json"
    result = call("--channels=4", "--size=8", "--batch=2", "--threads=2", "--seconds=1e-4", "--json", path)
    assert result.exit_code == 0, result.output
    assert re.search(r"^peaks, 1 thread: .* GF/s", result.output, re.MULTILINE)
    assert re.search(r"^peaks, 2 threads: .* GF/s", result.output, re.MULTILINE)
    document = json.loads(path.read_text())
    assert [peaks["threads"] for peaks in document["peaks"]] == [1, 2]
    names = [row["name"] for row in document["rows"]]
    assert names == [*work(4, 8, 1), "normal cell, fast, batch 2", "normal cell, lean, batch 2"]
    for row in document["rows"]:
        assert row["seconds"] > 0
        assert row["shape"] == [4, 8, 8]
        assert row["threads"] == (2 if "cell" in row["name"] else 1)
        assert f" {row['name']} " in result.output
    cell = document["rows"][-1]
    spec = Cell(16, 16, 4, False, False).spec
    assert cell["flops"] == 2 * 3 * 2 * cell_multiply_adds(spec, [(8, 8)] * 2)
    assert cell["bytes"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--channels=4"], "--channels and --size go together, got 1 of one and 0 of the other"),
        (["--json=/nowhere/file.json"], "--json: there is no folder /nowhere"),
        (["--stride=3"], "Invalid value for '--stride': 3 is not in the range 1<=x<=2."),
        (["--seconds=0"], "Invalid value for '--seconds': 0.0 is not in the range x>0."),
    ],
)
def test_bad_options_give_one_sentence(words: list[str], sentence: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert result.output == f"fastnas: {sentence}\n"
