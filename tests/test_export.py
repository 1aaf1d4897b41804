"""Exported networks compute what the trained ones do, where there is no fastnas."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from runs import retrain_config
from scenes import segmentation_folder

from fastnas.cli import main
from fastnas.export import plain_source
from fastnas.genotype import AutoDeepLabGenotype, CellGenotype, Genotype
from fastnas.nn import AutoDeepLabNetwork, DartsNetwork
from fastnas.ops import CANDIDATES
from fastnas.search.config import RetrainConfig
from fastnas.search.driver import retrain
from fastnas.search.segmentation_config import TrellisRetrainConfig
from fastnas.search.segmentation_driver import retrain as retrain_segmentation
from fastnas.search.trained import Images, Trained, read_trained

pytestmark = pytest.mark.usefixtures("one_thread")

# Every operation, read from an input, where it may stride, and from a node.
ALL = [name for name in CANDIDATES if name != "none"]
CELL = CellGenotype((tuple((name, i % 2) for i, name in enumerate(ALL)), tuple((name, 2) for name in ALL)), (2, 3))
SMALL = CellGenotype(((("dil_conv_3x3", 0), ("skip_connect", 1)), (("max_pool_3x3", 2), ("avg_pool_3x3", 0))), (3, 2))
# PyTorch's exporter takes 50 ms an operation: the networks that are trained have one cell of these.

BARE = """
import sys, torch
sys.modules["fastnas"] = None  # importing it is an error
sys.path.insert(0, ".")
torch.set_num_threads(int(sys.argv[1]))  # the bits of a sum depend on it
import classifier, segmenter
for module in (classifier, segmenter):
    network = module.load()
    torch.save([network(x) for x in torch.load(f"{module.__name__}.in", weights_only=True)], f"{module.__name__}.out")
"""


@pytest.fixture(scope="module")
def classifier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "classifier"
    retrain(Genotype(SMALL, SMALL), retrain_config(data, epochs=1, layers=1), out)
    return out


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    config = TrellisRetrainConfig(
        data=str(segmentation_folder(root / "data")), epochs=1, filters=2, crop=9, threads=1, batch_size=2
    )
    retrain_segmentation(AutoDeepLabGenotype(SMALL, (1,)), config, root / "segmenter")
    return root / "segmenter"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def exported(run: Path, out: Path, *words: str) -> Trained:
    result = call("export", run, "--out", out, *words)
    assert result.exit_code == 0, result.output
    assert str(out) in re.findall(r"^Exported: +(\S+)$", result.output, re.MULTILINE)
    return read_trained(run)


def test_plain_modules_give_the_same_bits_without_fastnas(classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    expected = {}
    for run in (classifier, segmenter):
        network = exported(run, tmp_path / f"{run.name}.py").network
        images = [torch.randn(n, 3, *size) for n, size in ((2, (6, 8)), (1, (17, 13)))]
        torch.save(images, tmp_path / f"{run.name}.in")
        expected[run.name] = [network(x) for x in images]
    subprocess.run([sys.executable, "-c", BARE, str(torch.get_num_threads())], cwd=tmp_path, check=True)
    for name, outputs in expected.items():
        found = torch.load(tmp_path / f"{name}.out", weights_only=True)
        assert all(torch.equal(a, b) for a, b in zip(found, outputs, strict=True))


def darts(stem: str) -> Trained:
    genotype = Genotype(CELL, SMALL)
    config = RetrainConfig(data="digits", channels=4, layers=4)
    network = DartsNetwork(genotype, 4, 4, 3, stem=stem)
    return Trained(Path("x"), "best", network, genotype, config, IMAGES)


def auto_deeplab(atrous: Any) -> Trained:
    genotype = AutoDeepLabGenotype(CELL, (0, 1, 2, 1))
    config = TrellisRetrainConfig(data=".", filters=2, atrous=atrous)
    network = AutoDeepLabNetwork(genotype, 2, 3, atrous=atrous)
    return Trained(Path("x"), "best", network, genotype, config, IMAGES)


IMAGES = Images(classes=("a", 'b "ü"\\', "c\n"), mean=(0.1, 0.2, 1 / 3), std=(0.5, 0.25, 0.1), size=(9, 8))


@pytest.mark.parametrize(
    ("make", "kind"), [(darts, "cifar"), (darts, "imagenet"), (auto_deeplab, "dense"), (auto_deeplab, "separable")]
)
def test_a_plain_module_defines_every_operation(make: Callable[[str], Trained], kind: str) -> None:
    trained = make(kind)
    ours = trained.network.eval()
    module: dict[str, Any] = {"__file__": "net.py", "__name__": "net"}
    source = plain_source(trained, "net")
    assert "fastnas" not in re.sub(r'""".*?"""|ORIGIN = .*', "", source, flags=re.DOTALL)
    sys.modules["net"] = type(sys)("net")  # dataclasses look their module up
    try:
        exec(compile(source, "net.py", "exec"), module)
    finally:
        del sys.modules["net"]
    theirs = module["Network"]().eval()
    theirs.load_state_dict(ours.state_dict())
    for size in ((32, 32), (19, 26)):
        x = torch.randn(2, 3, *size)
        assert torch.equal(theirs(x), ours(x))
    assert (tuple(module["CLASSES"]), tuple(module["MEAN"]), tuple(module["STD"])) == (
        IMAGES.classes,
        IMAGES.mean,
        IMAGES.std,
    )


def test_onnx_files_give_the_same_logits(classifier: Path, segmenter: Path, tmp_path: Path) -> None:
    for run, words, size in ((classifier, (), (6, 8)), (segmenter, ("--size", "17", "13"), (17, 13))):
        file = tmp_path / f"{run.name}.onnx"
        trained = exported(run, file, *words)
        session = onnxruntime.InferenceSession(file)
        assert [value.shape[1:] for value in session.get_inputs()] == [[3, *size]]
        for count in (1, 3):
            images = torch.randn(count, 3, *size)
            (logits,) = session.run(["logits"], {"images": images.numpy()})
            torch.testing.assert_close(torch.from_numpy(logits), trained.network(images))
        notes = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
        assert notes["classes"] == list(trained.images.classes)
        assert notes["mean"] == list(trained.images.mean)
        assert notes["std"] == list(trained.images.std)


def test_the_last_weights_are_exported_where_they_are_asked_for(classifier: Path, tmp_path: Path) -> None:
    shutil.copytree(classifier, tmp_path / "run")
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    last["classifier.bias"] += 1
    torch.save(last, tmp_path / "run" / "last.pt")
    exported(tmp_path / "run", tmp_path / "net.py", "--weights=last")
    found = torch.load(tmp_path / "net.weights.pt", weights_only=True)
    assert torch.equal(found["classifier.bias"], last["classifier.bias"])
    assert not any(name.startswith("auxiliary_head") for name in found)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{run}", "--out={tmp}/net.pt"], "--out is {tmp}/net.pt; expected a name that ends with .onnx or .py"),
        (["{run}", "--out={tmp}/my-net.py"], "expected a name that Python can import, such as network.py"),
        (["{run}", "--out={tmp}/class.py"], "expected a name that Python can import, such as network.py"),
        (["{run}", "--out={tmp}/a.py", "--size", "8", "8"], "--size is for .onnx files"),
        (["{run}", "--out={tmp}/nowhere/a.onnx"], "there is no folder {tmp}/nowhere"),
        (["{tmp}", "--out={tmp}/a.onnx"], "{tmp} holds no run of 'fastnas retrain' or 'fastnas retrain auto-deeplab'"),
    ],
)
def test_what_cannot_be_exported(classifier: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    result = call("export", *(word.format(run=classifier, tmp=tmp_path) for word in words))
    assert result.exit_code == 2
    assert sentence.format(tmp=tmp_path) in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("result.json", None, "result.json is missing; finish the training by: fastnas retrain --out {run} --resume"),
        ("result.json", b'{"classes": []}', "result.json is damaged, or an earlier fastnas wrote it"),
        ("best.pt", None, "best.pt is missing"),
        ("best.pt", b"PK", "best.pt cannot be loaded"),
        ("genotype.json", b"{}", "genotype.json: expected format"),
    ],
)
def test_a_damaged_training_is_not_exported(
    classifier: Path, tmp_path: Path, file: str, content: bytes | None, sentence: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(classifier, run)
    (run / file).unlink() if content is None else (run / file).write_bytes(content)
    result = call("export", run, "--out", tmp_path / "net.py")
    assert result.exit_code == 2
    assert sentence.format(run=run) in result.output
    assert list(tmp_path.iterdir()) == [run]


def test_onnx_without_its_library(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = call("export", classifier, "--out", tmp_path / "a.onnx")
    assert result.exit_code == 2
    assert "pip install 'fastnas[onnx]'" in result.output
    assert not list(tmp_path.iterdir())
