"""Training of a found network: the recipe, what it leaves behind, and nothing lost when it is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import files, image_folder, retrain_config, stopped_before_saving
from torch.amp import GradScaler

from fastnas.data import load_data
from fastnas.errors import InterruptError, UserError
from fastnas.genotype import DARTS_V1, DARTS_V2, load
from fastnas.nn import DartsNetwork, count
from fastnas.search.config import RetrainConfig
from fastnas.search.driver import retrain, settle
from fastnas.search.loop import Descent, Score
from fastnas.search.retrain import BestWeights, Retraining

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    retrain(DARTS_V2, retrain_config(data, drop_path=0.5), out)
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def task(data: Path, **options: Any) -> Retraining:
    images = load_data(str(data))
    config = settle(retrain_config(data, **options), images)
    network = DartsNetwork(DARTS_V2, config.channels, config.layers, 2, auxiliary=config.auxiliary)
    return Retraining(network, images, config)


def test_two_runs_with_one_seed_write_the_same(data: Path, finished: Path, tmp_path: Path) -> None:
    retrain(DARTS_V2, retrain_config(data, drop_path=0.5), tmp_path / "again")
    assert files(tmp_path / "again") == files(finished)


@pytest.mark.parametrize("steps", [3, 4, 10])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    out, step, done = tmp_path / "run", Descent.step, [0]

    def counted(self: Descent, loss: torch.Tensor) -> None:
        done[0] += 1
        if done[0] > steps:
            raise KeyboardInterrupt
        step(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(Descent, "step", counted)
        with pytest.raises(InterruptError, match=rf"{steps // 4} of 3 epochs saved.*fastnas retrain .*--resume"):
            retrain(DARTS_V2, retrain_config(data, drop_path=0.5), out)
    retrain(DARTS_V2, retrain_config(data, drop_path=0.5), out, resume=True)
    assert files(out) == files(finished)


@pytest.mark.parametrize("options", [{"ema": 0.9, "precision": "bfloat16"}, {"precision": "float16"}])
def test_so_does_one_with_a_mean_of_the_weights_or_a_scaled_loss(
    data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = retrain_config(data, epochs=2, **options)
    retrain(DARTS_V2, config, tmp_path / "whole")
    with stopped_before_saving(2):
        retrain(DARTS_V2, config, tmp_path / "run")
    retrain(DARTS_V2, config, tmp_path / "run", resume=True)
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_another_genotype_is_not_resumed_and_harms_nothing(data: Path, finished: Path) -> None:
    before = files(finished)
    with pytest.raises(UserError, match="is from a run with other genotype"):
        retrain(DARTS_V1, retrain_config(data, drop_path=0.5), finished, resume=True)
    assert files(finished) == before


def test_the_result_names_the_best_epoch_and_its_weights_are_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = retrain(DARTS_V2, retrain_config(data, lr=0.5, epochs=5), out)
    accuracies = [row["val_accuracy"] for row in rows(out)]
    assert result == json.loads((out / "result.json").read_text())
    assert result["best_val_accuracy"] == max(accuracies)
    assert result["best_epoch"] == accuracies.index(max(accuracies)) + 1
    assert result["last_val_accuracy"] == accuracies[-1]
    assert load(out / "genotype.json") == DARTS_V2
    trained = task(data)
    assert (result["parameters"], result["multiply_adds"]) == count(trained.network, 3, (6, 8))
    for name, accuracy in (("best.pt", max(accuracies)), ("last.pt", accuracies[-1])):
        trained.network.load_state_dict(torch.load(out / name, weights_only=True))
        assert trained.validate()["val_accuracy"] == accuracy


def test_of_equal_epochs_the_first_is_the_best(data: Path, tmp_path: Path) -> None:
    network = task(data).network
    best = BestWeights(network, tmp_path / "best.pt", "val_accuracy")
    best.on_start([], 1)
    best.on_epoch({"val_accuracy": 0.5})
    before = (tmp_path / "best.pt").read_bytes()
    torch.nn.init.zeros_(network.classifier.weight)
    best.on_epoch({"val_accuracy": 0.5})
    assert (tmp_path / "best.pt").read_bytes() == before
    best.on_epoch({"val_accuracy": 0.6})
    assert (tmp_path / "best.pt").read_bytes() != before


def test_dropping_paths_ramps_up(data: Path) -> None:
    trained = task(data, drop_path=0.3, epochs=3)
    seen = []
    for epoch in range(3):
        trained.train_epoch(epoch, lambda *_: None)
        seen.append(trained.network.drop_path)
    assert seen == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_loss_is_that_of_the_paper(data: Path, auxiliary: bool) -> None:
    trained = task(data, auxiliary=auxiliary, auxiliary_weight=0.3, label_smoothing=0.2, drop_path=0.0)
    images, labels = torch.randn(4, 3, 6, 8), torch.tensor([0, 1, 1, 0])
    trained.network.train()
    outputs = trained.network(images) if auxiliary else (trained.network(images),)
    expected = sum(
        weight * F.cross_entropy(logits, labels, label_smoothing=0.2)
        for weight, logits in zip((1.0, 0.3), outputs, strict=False)
    )
    torch.testing.assert_close(trained._loss(images, labels, Score()), expected)


def test_the_mean_of_the_weights_is_validated_and_kept(data: Path) -> None:
    trained = task(data, ema=0.75, drop_path=0.0)
    expected: dict[str, torch.Tensor] = {}

    def follow(*_: Any) -> None:
        for name, value in trained.state_dict()["network"].items():
            before = expected.get(name, value)
            expected[name] = 0.75 * before + 0.25 * value if value.is_floating_point() else value

    row = trained.train_epoch(0, follow)
    for name, value in trained.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])
    assert not torch.equal(trained.network.classifier.weight, trained.state_dict()["network"]["classifier.weight"])
    assert {name: row[name] for name in ("val_loss", "val_accuracy")} == trained.validate()
    plain = task(data)
    plain.network.load_state_dict(trained.network.state_dict())
    assert plain.validate() == trained.validate()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_computes_nearly_the_same(data: Path, precision: str) -> None:
    images, labels = torch.randn(4, 3, 6, 8), torch.tensor([0, 1, 1, 0])
    exact, rough = (task(data, precision=each, drop_path=0.0) for each in ("float32", precision))
    rough.load_state_dict(exact.state_dict() | {"descent": rough.descent.state_dict()})
    losses = [each._loss(images, labels, Score()) for each in (exact, rough)]
    assert losses[1].dtype == torch.float32
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, rtol=0.05, atol=0.05)
    dtypes = set()
    rough.network.classifier.register_forward_hook(lambda layer, given, out: dtypes.add(out.dtype))
    rough.train_epoch(0, lambda *_: None)
    assert dtypes == {getattr(torch, precision)}
    assert all(p.dtype == torch.float32 for p in rough.network.parameters())


def test_a_step_whose_scaled_gradient_overflows_is_left_out() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    descent = Descent([weight], RetrainConfig(data="digits", lr=1.0), 1, GradScaler("cpu"))
    descent.step((weight * 1e36).sum())  # times 65,536 it is more than float32 holds
    assert torch.equal(weight, torch.ones(3))
    assert descent.state_dict()["scaler"]["scale"] == 2**15
    descent.step(weight.sum())
    assert torch.all(weight < 1)


def test_validation_trains_nothing(data: Path) -> None:
    trained = task(data)
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    trained.validate()
    assert all(torch.equal(value, before[name]) for name, value in trained.network.state_dict().items())


def test_cutout_is_half_of_the_image_unless_chosen(data: Path) -> None:
    images = load_data(str(data))
    assert settle(retrain_config(data), images).cutout == 3
    assert settle(retrain_config(data, cutout=0), images).cutout == 0


def test_it_learns(tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data", train=32, val=16)
    config = retrain_config(data, epochs=6, batch_size=8, lr=0.1, channels=4, cutout=0, auxiliary=False)
    assert retrain(DARTS_V2, config, tmp_path / "run")["last_val_accuracy"] > 0.9
