"""Weights & Biases and MLflow get every figure once, also when a run is stopped and gone on with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from runs import TINY, TINY_OPTIONS, files, stopped_before_saving

import fastnas
from fastnas.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
FIGURES = ("train_loss", "val_accuracy", "alpha_entropy", "lr")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def stopped_and_resumed(data: Path, out: Path, log: str) -> list[dict[str, Any]]:
    """The history of a search that is stopped when its second epoch is logged, but not saved, and then gone on with."""
    with stopped_before_saving(epoch=2):
        fastnas.search(data, out=out, progress=False, log=log, **TINY)
    return fastnas.search(out=out, resume=True, progress=False).history


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B as on a machine where nobody ever logged in."""
    wandb = pytest.importorskip("wandb", reason="needs the package wandb")
    wandb.teardown()  # it keeps what it read of the environment
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local store of MLflow."""
    pytest.importorskip("mlflow", reason="needs the package mlflow")
    pytest.importorskip("sqlalchemy", reason="MLflow's local store needs the package sqlalchemy")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return uri


def records(path: Path) -> Iterator[Any]:
    """What W&B wrote to a file while offline: protocol buffers in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        parts, at = parts + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def test_wandb_gets_every_figure_once_also_after_a_stop(
    offline: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = stopped_and_resumed(data, tmp_path / "run", "wandb")
    first, last = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == last.name  # one run, whose later file is complete
    for path, epochs, code in ((first, 2, 1), (last, 3, 0)):
        kinds = [(record.WhichOneof("record_type"), record) for record in records(path)]
        steps = [record.history.step.num for kind, record in kinds if kind == "history"]
        assert steps == list(range(1, epochs + 1))
        logged = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for kind, record in kinds
            if kind == "history"
        ]
        for name in FIGURES:
            assert [row[name] for row in logged] == pytest.approx([row[name] for row in history[:epochs]])
        [run] = [record.run for kind, record in kinds if kind == "run"]
        assert (run.project, run.display_name) == ("fastnas", "run")
        options = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert (options["channels"], options["epochs"]) == (2, 3)
        assert [record.exit.exit_code for kind, record in kinds if kind == "exit"] == [code]


def test_mlflow_gets_every_figure_once_also_after_a_stop(
    store: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    history = stopped_and_resumed(data, tmp_path / "run", "mlflow")
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("fastnas")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert (run.data.params["channels"], run.data.params["data"]) == ("2", str(data))
    for name in FIGURES:
        logged = client.get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in logged] == [1, 2, 3]
        assert [metric.value for metric in logged] == pytest.approx([row[name] for row in history])


def test_loggers_change_no_bit_of_a_run(offline: None, store: str, data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress": False, **TINY, "epochs": 1}
    fastnas.search(data, out=tmp_path / "silent", log="none", **options)
    fastnas.search(data, out=tmp_path / "logged", log="tensorboard,wandb,mlflow", **options)
    assert not any((tmp_path / "silent" / name).exists() for name in ("tensorboard", "wandb", "mlflow"))
    assert all((tmp_path / "logged" / name).is_dir() for name in ("tensorboard", "wandb", "mlflow"))
    silent, logged = files(tmp_path / "silent"), files(tmp_path / "logged")
    assert silent.pop("config.json") != logged.pop("config.json")
    assert silent == logged


def test_where_figures_go_may_change(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("search", "--data", data, "--out", out, *TINY_OPTIONS, "--epochs=1", "--log=none").exit_code == 0
    assert not (out / "tensorboard").exists()
    assert call("search", "--out", out, "--resume", "--log=tensorboard").exit_code == 0


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnas.search.loggers.find_spec", lambda package: None)
    result = call("search", "--data", data, "--out", tmp_path / "run", f"--log={name}")
    sentence = f"fastnas: --log {name} needs the package {name}: pip install 'fastnas[{name}]'\n"
    assert (result.exit_code, result.stderr) == (2, sentence)
    assert not (tmp_path / "run").exists()


def test_a_logger_that_there_is_not(data: Path, tmp_path: Path) -> None:
    result = call("search", "--data", data, "--out", tmp_path / "run", "--log=wandb,wamdb")
    assert result.exit_code == 2
    assert "--log is 'wandb,wamdb'; expected tensorboard, wandb, mlflow, several with commas, or none" in result.stderr


def test_wandb_without_an_account(offline: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    result = call("search", "--data", data, "--out", tmp_path / "run", "--log=wandb", *TINY_OPTIONS)
    assert result.exit_code == 2
    assert "fastnas: Weights & Biases refuses the run: No API key configured." in result.stderr
    assert "WANDB_MODE=offline needs no account" in result.stderr


def test_mlflow_without_its_store(store: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "elsewhere://here")
    result = call("search", "--data", data, "--out", out, "--log=mlflow", *TINY_OPTIONS)
    assert result.exit_code == 2
    assert "fastnas: MLflow refuses the run: " in result.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert call("search", "--out", out, "--resume").exit_code == 0  # nothing is lost
