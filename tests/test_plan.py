"""Plans: what they predict is what is then measured, what they say fits does, and nothing else is asked of the user."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stock
import stock_trellis
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from plan import predicted
from torch import nn

from fastnas.cli import main
from fastnas.measure import saved_for_backward
from fastnas.nn import AutoDeepLabSupernet, DartsSupernet
from fastnas.plan import STOCK, CpuEngine, Size, StockEngine, make_engine, make_row, plan_step
from fastnas.plan.described import _RULES, described
from fastnas.plan.fit import largest
from fastnas.plan.ledger import _tensors
from fastnas.plan.networks import Described

DARTS = {"channels": 4, "layers": 3}
TRELLIS = {"filters": 4, "steps": 2, "layers": 4}
SIZES = {"darts": DARTS, "auto-deeplab": TRELLIS}


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, words)])


def built(kind: str, mode: str) -> nn.Module:
    if kind == "darts":
        return stock.Network(**DARTS) if mode == STOCK else DartsSupernet(**DARTS, memory=mode)
    return stock_trellis.Network(**TRELLIS) if mode == STOCK else AutoDeepLabSupernet(**TRELLIS, memory=mode)


@pytest.mark.parametrize("mode", ["fast", "lean", STOCK])
@pytest.mark.parametrize(("kind", "size"), [("darts", (3, 16, 12)), ("auto-deeplab", (2, 65, 49))])
def test_weights_gradients_and_saved_tensors_are_as_measured(kind: str, size: tuple[int, ...], mode: str) -> None:
    described = Described(kind, **SIZES[kind])
    engine = StockEngine() if mode == STOCK else CpuEngine(1)
    step = plan_step(described, Size(*size), engine, mode)
    network = built(kind, mode)
    parameters, buffers = (sum(t.nbytes for t in tensors) for tensors in (network.parameters(), network.buffers()))
    assert step.gradients == parameters
    assert step.weights == pytest.approx(parameters + buffers, rel=0.001)  # fastnas keeps numbers of α's rows
    images = torch.randn(size[0], 3, *size[1:])
    labels = torch.zeros(size if kind == "auto-deeplab" else size[0], dtype=torch.int64)
    existing = [images, labels, *network.parameters(), *network.buffers()]
    found = saved_for_backward(lambda: F.cross_entropy(network(images), labels), existing)
    assert step.saved == pytest.approx(found.storages, rel=0.02)


def test_operators_are_described_as_pytorch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def both(func: Any, args: Any, kwargs: Any) -> Any:
        ours = described(func, args, kwargs)
        if func in _RULES:
            seen.add(func)
            theirs = func(*args, **kwargs)
            assert [facts(t) for t in _tensors(ours)] == [facts(t) for t in _tensors(theirs)], func
        return ours

    def facts(t: torch.Tensor) -> tuple[Any, ...]:
        return t.shape, t.stride(), t.dtype, t.device

    monkeypatch.setattr("fastnas.plan.ledger.described", both)
    for kind, height, width in (("darts", 16, 12), ("auto-deeplab", 33, 31)):
        for engine, mode in ((CpuEngine(1), "fast"), (StockEngine(), STOCK)):
            plan_step(Described(kind, **SIZES[kind]), Size(2, height, width), engine, mode)
    assert seen == set(_RULES)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's figures")
@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_peak_is_as_measured(mode: str) -> None:
    code = f"from plan import *; print(json.dumps(asdict(measured('darts', '{mode}', Size(16, 32, 32), 1))))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path), "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert predicted("darts", mode, Size(16, 32, 32), 1).peak == pytest.approx(json.loads(done.stdout)["peak"], rel=0.1)


@pytest.mark.parametrize("kind", ["darts", "auto-deeplab"])
def test_backends_for_gpus_are_planned_without_one(kind: str) -> None:
    described = Described(kind, **SIZES[kind])
    size = Size(2, 64, 64)
    plain = plan_step(described, size, StockEngine(), STOCK)
    fast, lean = (plan_step(described, size, make_engine("cuda", 1, described), mode) for mode in ("fast", "lean"))
    assert lean.saved < fast.saved < plain.saved
    assert fast.scratch > 0
    assert lean.peak < plain.peak


@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_the_next_larger_batch_and_crop_do_not_fit(mode: str) -> None:
    described, engine = Described("darts", **DARTS), CpuEngine(1)
    limit = 50_000_000
    row = make_row(described, Size(4, 32, 32), engine, mode, limit)
    assert row.batch
    assert row.crop

    def peak(*size: int) -> int:
        return plan_step(described, Size(*size), engine, mode).peak

    assert peak(row.batch, 32, 32) <= limit < peak(row.batch + 1, 32, 32)
    assert peak(4, row.crop, row.crop) <= limit < peak(4, row.crop + 1, row.crop + 1)


@pytest.mark.parametrize(
    ("peak", "power", "start", "expected"),
    [
        (lambda n: 100 + 7 * n, 1, 16, 128),
        (lambda n: 100 + 7 * n, 1, 1000, 128),
        (lambda n: max(100 + 7 * n, 20 * n), 1, 3, 50),
        (lambda n: 10 + (n + n % 2) ** 2, 2, 5, 30),
        (lambda n: 100 + n // 50 * 100, 1, 1, 499),
        (lambda n: 2000 + n, 1, 16, None),
    ],
)
def test_largest_that_fits_1000(peak: Callable[[int], int], power: int, start: int, expected: int | None) -> None:
    assert largest(peak, 1000, start, power, least=1, base=50) == expected


def test_table_and_json(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = call("--channels", "4", "--layers", "3", "--batch", "4", "--memory", "50MB", "--json", path)
    assert result.exit_code == 0, result.output
    document = json.loads(path.read_text())
    assert (document["network"], document["batch"], document["height"], document["memory"]) == ("darts", 4, 32, 50e6)
    fast, lean, plain = document["rows"]
    assert [row["name"] for row in document["rows"]] == ["fast", "lean", "stock"]
    assert plain["step"]["saved"] > fast["step"]["saved"] > lean["step"]["saved"]
    for word in ("saved", "scratch", "peak", f"{lean['crop']}×{lean['crop']}", str(fast["batch"])):
        assert word in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--memory", "16"], "expected a positive number with a unit of KB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        (["--memory", "16XB"], "such as 16GB, got '16XB'"),
        (["--memory", "-1GB"], "got '-1GB'"),
        (["--crop", "0"], "expected a number of pixels, or height and width as 321x641, got '0'"),
        (["--steps", "3"], "--steps goes with --network auto-deeplab"),
        (["--network", "auto-deeplab", "--channels", "3"], "filters must be even and at least 2, got 3"),
        (["--network", "auto-deeplab", "--atrous", "dense"], "--atrous dense cannot be planned: its convolutions are"),
        (["--json", "/nowhere/plan.json"], "--json: there is no folder /nowhere"),
        (["--channels", "4", "--layers", "3", "--memory", "1MB"], "1.0 MB do not hold this network: lean takes "),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_plan_imports_pytorchs_compiler() -> None:
    """It takes a second."""
    code = (
        "import sys, torch; from click.testing import CliRunner; from fastnas.cli import main; old = set(sys.modules); "
        "words = ['plan', '--channels', '4', '--layers', '3', '--network']; "
        "plan = lambda network: CliRunner().invoke(main, [*words, network]).exit_code; "
        "assert plan('darts') == plan('auto-deeplab') == 0; new = {*sys.modules} - old; "
        "sys.exit('sympy' in new or 'torch._dynamo' in new)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from fastnas.cli import main; "
        "assert CliRunner().invoke(main, ['plan', '--help']).exit_code == 0; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
