"""Options from files and presets: who wins, what is written, and that the papers' settings are what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from runs import TINY_OPTIONS

from fastnas.cli import main
from fastnas.search.config import RetrainConfig, RunConfig, SearchConfig, make_config
from fastnas.search.config_file import presets, read_config_file, read_preset
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig

MODELS: dict[str, type[RunConfig]] = {
    "search": SearchConfig,
    "retrain": RetrainConfig,
    "search auto-deeplab": TrellisSearchConfig,
    "retrain auto-deeplab": TrellisRetrainConfig,
}
TEXTS = {
    "yaml": "data: digits\nchannels: 2\nlr: 3e-2  # a number\nmirror: true\n",
    "toml": 'data = "digits"\nchannels = 2\nlr = 3e-2\nmirror = true\n',
    "json": '{"data": "digits", "channels": 2, "lr": 3e-2, "mirror": true}',
}


def call(*words: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def used(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "config.json").read_text())["config"])


@pytest.mark.parametrize("suffix", TEXTS)
def test_a_file_of_each_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"o.{suffix}").write_text(TEXTS[suffix])
    values = read_config_file(tmp_path / f"o.{suffix}", "search")
    assert values == {"data": "digits", "channels": 2, "lr": 0.03, "mirror": True}


def test_the_command_line_wins_over_the_file_and_that_over_the_preset(data: Path, tmp_path: Path) -> None:
    (tmp_path / "o.toml").write_text("epochs = 1\nchannels = 4\nlayers = 3\nbatch-size = 4\nthreads = 1\npadding = 1\n")
    words = ["search", "--data", data, "--preset=darts-cifar10", "--config", tmp_path / "o.toml", "--channels=2"]
    call(*words, "--out", tmp_path / "run")
    config = used(tmp_path / "run")
    assert (config["channels"], config["padding"], config["layers"], config["lr_min"]) == (2, 1, 3, 0.001)
    assert read_preset("darts-cifar10", "search")["padding"] == 4


def test_what_a_run_used_repeats_it(data: Path, tmp_path: Path) -> None:
    call("search", "--data", data, "--out", tmp_path / "run", *TINY_OPTIONS, "--epochs=1")
    call("search", "--config", tmp_path / "run" / "config.json", "--out", tmp_path / "again")
    for name in ("config.json", "history.jsonl", "genotype.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_training_takes_its_options_from_a_file_and_its_images_from_the_search(data: Path, tmp_path: Path) -> None:
    call("search", "--data", data, "--out", tmp_path / "run", *TINY_OPTIONS, "--epochs=1")
    (tmp_path / "o.yaml").write_text("epochs: 1\nchannels: 2\nlayers: 3\nbatch_size: 4\nauxiliary: false\n")
    call("retrain", tmp_path / "run", "--config", tmp_path / "o.yaml", "--out", tmp_path / "net")
    assert (used(tmp_path / "net")["data"], used(tmp_path / "net")["auxiliary"]) == (str(data), False)


def test_presets_are_listed_and_valid() -> None:
    listed = call("search", "--list-presets").output
    for name, command, description in presets():
        assert re.search(rf"^{name} +{command} +{re.escape(description)}$", listed, re.MULTILINE)
        make_config(MODELS[command], {"data": "digits", **read_preset(name, command)})


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("darts-cifar10", "search"),
        ("darts-cifar10-retrain", "retrain"),
        ("auto-deeplab-cityscapes", "search auto-deeplab"),
        ("auto-deeplab-cityscapes-retrain", "retrain auto-deeplab"),
    ],
)
def test_defaults_are_the_papers_settings_where_they_do_not_depend_on_the_images(name: str, command: str) -> None:
    fields = MODELS[command].model_fields
    for option, value in read_preset(name, command).items():
        if fields[option].default is not None and option != "scale":
            assert value == fields[option].default, option
