"""The command that repeats a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from fastnas.search.config import GENOTYPE, RetrainConfig, RunConfig, SearchConfig, option
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.strategies import find_strategy

MODELS: dict[str, type[RunConfig]] = {
    "search": SearchConfig,
    "search auto-deeplab": TrellisSearchConfig,
    "retrain": RetrainConfig,
    "retrain auto-deeplab": TrellisRetrainConfig,
}


def repeat_command(command: str, config: dict[str, Any], folder: Path) -> str:
    """What to type for the run in `folder` once more, into a folder beside it: every option unlike its default."""
    words = ["fastnas", *command.split()]
    if command.startswith("retrain"):
        words.append(str(folder / GENOTYPE))
    strategy, usual = config.get("strategy"), MODELS[command].model_fields
    # A strategy has defaults of its own; its name is the default of its own options, not of the command's.
    fields = find_strategy(strategy).options.model_fields if strategy else usual
    for name, value in config.items():
        field = (usual if name == "strategy" else fields).get(name)
        if field is None or value != field.default:
            words += _option(name, value)
    return shlex.join([*words, "--out", f"{folder}-again"])


def _option(name: str, value: Any) -> list[str]:
    flag = option(name)
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, list):
        return [word for item in value for word in (flag, str(item))]
    return [flag, str(value)]
