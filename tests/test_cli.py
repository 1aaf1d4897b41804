"""The command line: what it shows, what it leaves behind, and how it stops."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from runs import TINY_OPTIONS, files

import fastnas
from fastnas.cli import main
from fastnas.genotype import DARTS_V2, load, save
from fastnas.search.config import RetrainConfig, RunConfig, SearchConfig
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig

FASTNAS = [sys.executable, "-m", "fastnas"]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def lines(result: Result) -> dict[str, str]:
    """The closing lines of a command: what, and where."""
    assert result.exit_code == 0, result.output
    return dict(re.findall(r"^(\S[^:\n]*):\s+(\S.*)$", result.output, re.MULTILINE))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished search."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert lines(call("search", "--data", data, "--out", out, *TINY_OPTIONS))["Next"] == f"fastnas decode {out}"
    return out


def test_help_imports_no_torch() -> None:
    code = "import sys, fastnas.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    help_text = subprocess.run([*FASTNAS, "--help"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  (\w+)  ", help_text.split("Commands:")[1], re.MULTILINE) == [
        "search",
        "decode",
        "retrain",
        "repeat",
        "evaluate",
        "export",
        "plot",
        "report",
        "plan",
        "accelerate",
        "info",
        "bench",
    ]


FACTORIES = """
import torch
from torch import nn
from stock import MixedOp

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.edge = MixedOp(4, 1)
        self.alpha = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return self.edge(x, self.alpha.softmax(0))

class Two(Net):
    def forward(self, x, y):
        return super().forward(x) + y.mean()

def number(): return 1
def of_width(width): return Net()
constant = 1
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, in the folder where the command runs; none else has its name."""
    monkeypatch.chdir(tmp_path)
    name = f"factories_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    return name


@pytest.mark.usefixtures("unmeasured")
def test_accelerate_reports_on_a_model_of_the_users(factories: str) -> None:
    result = call("accelerate", f"{factories}:Net", "--input", "2x4x8x8", "--strict")
    assert result.exit_code == 0, result.output
    assert "1 modules fused, with 8 candidates; 0 left" in result.output


@pytest.mark.usefixtures("unmeasured")
def test_accelerate_gives_a_model_all_its_inputs(factories: str) -> None:
    result = call("accelerate", f"{factories}:Two", "--input", "2x4x8x8", "--input", "3x5", "--strict")
    assert result.exit_code == 0, result.output
    assert "1 modules fused" in result.output


@pytest.mark.parametrize(
    ("factory", "size", "message"),
    [
        ("{}:Net", "2x4x0x8", "--input: expected sizes joined by x, such as 16x3x32x32, got '2x4x0x8'"),
        ("{}", "2x4x8x8", "expected PACKAGE.MODULE:FACTORY, got '{}'"),
        ("{}:Other", "2x4x8x8", "{}:Other cannot be imported: module '{}' has no attribute 'Other'"),
        ("no_such_module:Net", "2x4x8x8", "no_such_module:Net cannot be imported: No module named 'no_such_module'"),
        ("{}:constant", "2x4x8x8", "{}:constant must be a function or class that makes the model, got a int"),
        ("{}:of_width", "2x4x8x8", "{}:of_width cannot be called without arguments"),
        ("{}:number", "2x4x8x8", "{}:number must make an nn.Module, it made a int"),
        ("torch.nn:Identity", "2x4x8x8", "it is a single candidate operation by itself"),
    ],
)
def test_accelerate_refuses_in_a_sentence(factories: str, factory: str, size: str, message: str) -> None:
    result = call("accelerate", factory.replace("{}", factories), "--input", size, "--strict")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert message.replace("{}", factories) in result.stderr


def test_help_of_no_command_imports_torch() -> None:
    code = """
import sys
from click import Context, Group
from click.testing import CliRunner
from fastnas.cli import main

def visit(command, words):
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0 and result.output.startswith("Usage: "), result.output
    assert "torch" not in sys.modules, words
    context = Context(command)
    for name in command.list_commands(context) if isinstance(command, Group) else ():
        visit(command.get_command(context, name), [*words, name])


visit(main, [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    assert call("--version").output == f"fastnas {fastnas.__version__}\n"


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("search darts", SearchConfig),
        ("search auto-deeplab", TrellisSearchConfig),
        ("retrain darts", RetrainConfig),
        ("retrain auto-deeplab", TrellisRetrainConfig),
    ],
)
def test_help_shows_every_option_with_default_and_range(command: str, model: type[RunConfig]) -> None:
    text = " ".join(call(*command.split(), "--help").output.split())
    for name, field in model.model_fields.items():
        assert f"--{name.replace('_', '-')} " in text
        assert field.description
        assert " ".join(field.description.split()) in text
    assert f"[default: {model.model_fields['lr'].default}; x>0]" in text
    assert "[default: 0.9; 0<=x<1]" in text


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_help_of_a_command_names_its_methods(command: str) -> None:
    text = call(command, "--help").output
    assert re.findall(r"^  ([\w-]+)  ", text.split("Commands:")[1], re.MULTILINE) == ["darts", "auto-deeplab"]


def test_options_reach_the_configuration(data: Path, tmp_path: Path) -> None:
    options = ["--mirror", "--padding=2", "--cutout=1", "--seed=3", "--alpha-lr=0.01", "--memory=lean", "--epochs=1"]
    lines(call("search", "--data", data, "--out", tmp_path / "run", *TINY_OPTIONS, *options))
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    expected = {"mirror": True, "padding": 2, "cutout": 1, "seed": 3, "alpha_lr": 0.01, "memory": "lean", "epochs": 1}
    assert {name: config[name] for name in expected} == expected


def test_decode_prints_and_writes_the_genotype(run: Path) -> None:
    searched = load(run / "genotype.json")
    result = call("decode", run)
    assert lines(result)["Genotype"] == str(run / "genotype.json")
    assert load(run / "genotype.json") == searched
    first, second = searched.normal.nodes[3]
    states = ["the cell before the previous", "the previous cell", "node 0", "node 1", "node 2"]
    assert f"  node 3 = {first[0]}({states[first[1]]}) + {second[0]}({states[second[1]]})\n" in result.output


def test_decode_of_an_epoch_leaves_the_last_alone(run: Path) -> None:
    before = (run / "genotype.json").read_bytes()
    written = lines(call("decode", run, "--epoch", "1"))
    assert written["Genotype"] == str(run / "genotype-1.json")
    assert written["Next"] == f"fastnas retrain {run / 'genotype-1.json'} --out {run}-net"
    load(run / "genotype-1.json")
    assert (run / "genotype.json").read_bytes() == before


def test_retrain_of_a_run_takes_its_images(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    result = call("retrain", run, "--out", out, *TINY_OPTIONS, "--epochs=1")
    assert lines(result)["Result"] == str(out / "result.json")
    assert json.loads((out / "config.json").read_text())["config"]["data"] == str(data)
    assert load(out / "genotype.json") == load(run / "genotype.json")
    assert re.search(r"^Validation accuracy [\d.]+% \(epoch 1\)", result.output, re.MULTILINE)
    before = files(out)
    lines(call("retrain", "--out", out, "--resume"))
    assert files(out) == before


def test_retrain_of_a_file_takes_the_images_it_is_given(data: Path, tmp_path: Path) -> None:
    save(DARTS_V2, tmp_path / "v2.json")
    result = call(
        "retrain", tmp_path / "v2.json", "--data", data, "--out", tmp_path / "net", *TINY_OPTIONS, "--epochs=1"
    )
    lines(result)
    assert load(tmp_path / "net" / "genotype.json") == DARTS_V2


def test_plot_draws_a_search(run: Path) -> None:
    result = call("plot", run)
    drawn = {Path(path) for path in re.findall(r"(\S+\.(?:svg|png))$", result.output, re.MULTILINE)}
    stems = ["cells-normal", "cells-reduce", "curves", "alpha-normal", "alpha-reduce"]
    assert drawn == {run / f"{stem}{suffix}" for stem in stems for suffix in (".svg", ".png")}
    for path in drawn:
        if path.suffix == ".png":
            with Image.open(path) as image:
                dark, light = image.convert("L").getextrema()
                assert light - dark > 200
        else:
            assert "</svg>" in path.read_text()
    assert lines(result)["Next"] == f"fastnas retrain {run} --out {run}-net"


def test_plot_draws_a_training(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    lines(call("retrain", run, "--out", out, *TINY_OPTIONS, "--epochs=2"))
    assert lines(call("plot", out))["Curves"] == str(out / "curves.png")
    assert not (out / "alpha-normal.png").exists()


def test_info_lists_backends_with_reasons() -> None:
    result = call("info")
    assert result.exit_code == 0
    assert re.search(r"^backend reference\s+can run: \S", result.output, re.MULTILINE)
    assert re.search(r"^backend cpu\s+(can|cannot) run: \S", result.output, re.MULTILINE)
    assert re.search(rf"^fastnas\s+{fastnas.__version__}$", result.output, re.MULTILINE)


def test_ctrl_c_stops_cleanly_and_the_run_can_be_resumed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["search", f"--data={data}", f"--out={out}", *TINY_OPTIONS, "--epochs=12"]
    # A shell's background job, as CI may be, inherits an ignored SIGINT; a user's terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen([*FASTNAS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process:
        while not (out / "history.jsonl").exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(
        rf"fastnas: interrupted, with \d+ of 12 epochs saved; go on with: fastnas search --out {out} --resume\n", error
    )
    assert not list(out.glob("*.tmp"))
    assert not (out / "genotype.json").exists()
    subprocess.run([*FASTNAS, *error.split("fastnas ")[-1].split()], check=True, capture_output=True)
    lines(call(*words[:2], f"--out={tmp_path / 'whole'}", *words[3:]))
    assert files(out) == files(tmp_path / "whole")
