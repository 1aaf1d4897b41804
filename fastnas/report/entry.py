"""A run as the page tells of it: everything that its folder holds, read and checked before anything is drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from fastnas.errors import UserError
from fastnas.genotype import AutoDeepLabGenotype, Genotype, GenotypeError
from fastnas.report.repeat import MODELS, repeat_command
from fastnas.search.alphas import found_genotype
from fastnas.search.config import CONFIG, read_config
from fastnas.search.performance import read_performance, seconds
from fastnas.search.run import EVALUATION, PERFORMANCE, RESULT, Record, Row, read_record

MOST = 8  # runs whose colours can be told apart


@dataclass(frozen=True)
class Entry:
    """A run.

    Attributes:
        name: what tells it from the others.
        folder: as the user gave it.
        record: what its checkpoint holds.
        config: every option, as used.
        version: of the fastnas that wrote the configuration.
        genotype: what the search found so far, or what is trained.
        result: of a training that is done: accuracies, parameters.
        evaluation: of a segmentation network: intersection over union, class by class.
        performance: see `fastnas.search.performance.Performance`; empty where an older fastnas ran.
    """

    name: str
    folder: Path
    record: Record
    config: dict[str, Any]
    version: str
    genotype: Genotype | AutoDeepLabGenotype
    result: dict[str, Any]
    evaluation: dict[str, Any]
    performance: list[dict[str, Any]]

    @property
    def history(self) -> list[Row]:
        """A row an epoch."""
        return self.record.history

    @property
    def searched(self) -> bool:
        """Whether it is a search, rather than the training of what one found."""
        return self.record.command.startswith("search")

    @cached_property
    def repeat(self) -> str:
        """The command that repeats it."""
        return repeat_command(self.record.command, self.config, self.folder)

    @property
    def environment(self) -> dict[str, Any]:
        """Where it ran last: versions, processor, threads."""
        starts = [line for line in self.performance if "started" in line]
        return starts[-1] if starts else {"fastnas": self.version}

    @property
    def seconds(self) -> float | None:
        """That all epochs took."""
        return seconds(self.performance)

    @property
    def speed(self) -> float | None:
        """Images forward and backward a second: the median epoch's."""
        speeds = [line["images"] / line["busy"] for line in self._epochs if line["busy"]]
        return median(speeds) if speeds else None

    @property
    def peak(self) -> int | None:
        """The most main memory of its process, in bytes."""
        return max((line["peak"] for line in self._epochs), default=None)

    @property
    def rise(self) -> int | None:
        """By how much that was more than before the first epoch; unknown where it was interrupted."""
        starts = [line["peak"] for line in self.performance if "started" in line]
        return self.peak - starts[0] if self.peak and len(starts) == 1 else None

    @property
    def _epochs(self) -> list[dict[str, Any]]:
        return [line for line in self.performance if "epoch" in line]


def read_entries(folders: Sequence[Path]) -> list[Entry]:
    """Reads runs.

    Raises:
        UserError: there are none, too many, or one twice; one has no finished epoch, or a file of it is damaged.
    """
    if not folders:
        raise UserError("expected the folder of at least one run")
    if len(folders) > MOST:
        raise UserError(f"{len(folders)} runs were given; a page compares at most {MOST}")
    places = [folder.resolve() for folder in folders]
    for i, folder in enumerate(folders):
        if places[i] in places[:i]:
            raise UserError(f"{folder} is given twice")
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [_read(name, folder) for name, folder in zip(names, folders, strict=True)]


def _read(name: str, folder: Path) -> Entry:
    record = read_record(folder)
    if record.command not in MODELS:
        raise UserError(f"{folder} holds a run of 'fastnas {record.command}'; a report tells of {', '.join(MODELS)}")
    if not record.history:
        raise UserError(f"{folder} holds no run with a finished epoch")
    try:
        genotype = found_genotype(folder, record.command, record.history)
    except GenotypeError as error:
        raise UserError(str(error)) from error
    return Entry(
        name=name,
        folder=folder,
        record=record,
        config=read_config(folder / CONFIG, record.command),
        version=str(_read_json(folder / CONFIG).get("fastnas", "unknown")),
        genotype=genotype,
        result=_read_json(folder / RESULT),
        evaluation=_read_json(folder / EVALUATION),
        performance=read_performance(folder / PERFORMANCE),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """An object; empty where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: expected JSON") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected an object")
    return content
