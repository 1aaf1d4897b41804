"""The folder of one run: its configuration, its checkpoint, and what follows from the checkpoint.

The checkpoint holds everything; the history is written from it, so an interruption in between leaves no gap.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastnas import __version__
from fastnas.errors import UserError
from fastnas.search import processes
from fastnas.search.checkpoint import CHECKPOINT, PREVIOUS, read_latest, write_checkpoint
from fastnas.search.config import CONFIG, Config, RunConfig, config_text, make_config, option, read_config
from fastnas.search.files import make_run_folder, write_atomically
from fastnas.search.launch import launched
from fastnas.search.lock import locked

if TYPE_CHECKING:
    from fastnas.search.loop import Task

Row = dict[str, Any]
"""What the history keeps of an epoch."""


def numbers(row: Row) -> dict[str, float]:
    """The figures of an epoch."""
    return {name: value for name, value in row.items() if isinstance(value, float)}


HISTORY, RESULT, EVALUATION, PERFORMANCE = "history.jsonl", "result.json", "evaluation.json", "performance"

# They change how fast a run is, where its figures go, or its last bits at most.
_FREE_TO_CHANGE = {"device", "threads", "workers", "log"}


class Run:
    """A run of `fastnas command` that lives in `folder`; from `check` to the end of its block no other process may.

    Attributes:
        folder, command: as given.
        config: with which it has begun.
    """

    config: RunConfig

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self._identity: dict[str, Any] = {}
        self._state: dict[str, Any] | None = None
        self._read = self.folder / CHECKPOINT  # where the state is from
        self._whole = False  # whether the last checkpoint can be gone back to
        self._stack = ExitStack()
        self._resumed = False

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self, config: Config, resume: bool) -> Config:
        """Looks whether the run can start, or be resumed, in its folder; changes nothing.

        Returns:
            The configuration; in one to resume, options left open (None) are those the run was started with.

        Raises:
            UserError: there is another run to overwrite, none to resume, one with other options, or one that another
                process is at.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; --out takes a folder")
        self._resumed = resume
        if resume:
            if (self.folder / CONFIG).exists():
                self._stack.enter_context(locked(self.folder))
            stored = read_config(self.folder / CONFIG, self.command)
            given = {name: value for name, value in config.model_dump(mode="json").items() if value is not None}
            config = make_config(type(config), stored | given)
            compare(config.model_dump(mode="json"), stored, self.folder)
        else:
            self._check_empty()
        return config

    def _check_empty(self) -> None:
        if launched().first and any((self.folder / name).exists() for name in (CONFIG, CHECKPOINT, PREVIOUS, HISTORY)):
            raise UserError(f"{self.folder} holds a run already; choose another --out, or go on with it by --resume")

    def begin(self, config: RunConfig, facts: dict[str, Any]) -> None:
        """Makes the folder of a new run, or reads the checkpoint of one to resume; then writes the configuration.

        Args:
            config: with no option left open.
            facts: what else must be the same for the run to be resumed: numbers, strings, and lists of them.

        Raises:
            UserError: the checkpoint is damaged or that of another run, the processes of this one do not agree, or a
                file cannot be written.
        """
        self.config = config
        values = config.model_dump(mode="json", exclude=_FREE_TO_CHANGE)
        self._identity = {"command": self.command, "config": values, "facts": facts}
        if self._resumed and (found := read_latest(self.folder)):
            self._read, self._state = found
            self._check_identity(self._read, self._state)
            self._whole = self._read.name == CHECKPOINT
        self._check_processes()
        if not self._resumed:
            self._make_folder()
        write_atomically(self.folder / CONFIG, config_text(config, self.command, __version__).encode())

    def _check_processes(self) -> None:
        """All of them must be at the same run, and where it stands: each reads its own command line and disk."""
        options = {option(name): value for name, value in self._identity["config"].items()}
        facts = {name.replace("_", " "): value for name, value in self._identity["facts"].items()}
        saved = len(self._state.get("history", [])) if self._state else 0
        first, *others = processes.from_all({"command": self.command, **options, **facts, "saved epochs": saved})
        for rank, other in enumerate(others, 1):
            for name in first | other:
                here, there = first.get(name), other.get(name)
                if here != there:
                    raise UserError(
                        f"{name}: {here} in process 0 of the run, but {there} in process {rank}; all of them need the "
                        "same options, data and --out"
                    )

    def _make_folder(self) -> None:
        make_run_folder(self.folder)
        self._stack.enter_context(locked(self.folder))
        self._check_empty()  # another process may have been faster

    def restore(self, task: Task) -> list[Row]:
        """Brings `task` to where the checkpoint left it.

        Returns:
            The history up to there; empty without a checkpoint.

        Raises:
            UserError: the checkpoint is that of another network.
        """
        if self._state is None:
            processes.diverge()
            return []
        rank, count = launched().share
        try:
            task.load_state_dict(self._state["task"])
            # PyTorch reads a state from the start of its storage, so a row has to have its own.
            torch.set_rng_state(self._state["rng"].view(count, -1)[rank].clone())
            if "cuda_rng" in self._state and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.set_rng_state(self._state["cuda_rng"].view(count, -1)[rank].clone())
            history = [json.loads(line) for line in self._state["history"]]
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{self._read} is of another network: {reason}") from error
        self._write_history(self._state["history"])
        self._state = None
        return history

    def save(self, task: Task, history: list[Row]) -> None:
        """Writes the checkpoint, keeping the one before it, then the history; every process takes part.

        Raises:
            WriteError: a file cannot be written; the ones before are unchanged.
        """
        lines = [json.dumps(row) for row in history]
        generators = processes.from_all(torch.get_rng_state())
        state = {"processes": len(generators), "rng": torch.stack(generators), "history": lines}
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state["cuda_rng"] = torch.stack(processes.from_all(torch.cuda.get_rng_state()))
        if not launched().first:
            return
        before = self.folder / PREVIOUS if self._whole else None
        write_checkpoint(self.folder / CHECKPOINT, {**self._identity, "task": task.state_dict(), **state}, before)
        self._whole = True
        self._write_history(lines)

    def _write_history(self, lines: list[str]) -> None:
        write_atomically(self.folder / HISTORY, "".join(f"{line}\n" for line in lines).encode())

    def _check_identity(self, path: Path, state: dict[str, Any]) -> None:
        command, config, facts = (state.get(name) for name in ("command", "config", "facts"))
        if command != self.command or not isinstance(config, dict) or not isinstance(facts, dict):
            raise UserError(f"{path} is not from a run of 'fastnas {self.command}'")
        count, now = state.get("processes", 1), launched().count
        if count != now:
            raise UserError(f"{path} is from a run with another number of processes: {count}, now {now}")
        compare(self._identity["config"], config, path)
        for name, now in self._identity["facts"].items():
            before = facts.get(name)
            if before != now:
                values = f": {before}, now {now}" if isinstance(now, int) else ""
                raise UserError(f"{path} is from a run with other {name.replace('_', ' ')}{values}")


@dataclass(frozen=True)
class Record:
    """What a run's checkpoint tells of it.

    Attributes:
        command: without "fastnas".
        config: every option but those that are free to change.
        facts: of the data, see `Run.begin`.
        history: a row an epoch.
    """

    command: str
    config: dict[str, Any]
    facts: dict[str, Any]
    history: list[Row]


def read_record(folder: Path) -> Record:
    """What the checkpoint in `folder` tells of the run.

    Raises:
        UserError: there is no checkpoint, or it is damaged.
    """
    if not folder.exists():
        raise UserError(f"there is no folder {folder}")
    found = read_latest(folder)
    if found is None:
        raise UserError(f"{folder} holds no run with a finished epoch: {CHECKPOINT} is missing")
    path, state = found
    try:
        history = [json.loads(line) for line in state["history"]]
        return Record(str(state["command"]), dict(state["config"]), dict(state["facts"]), history)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} holds no history of a run") from error


def read_history(folder: Path) -> tuple[str, list[Row]]:
    """The command of the run in `folder` and its history, see `read_record`."""
    record = read_record(folder)
    return record.command, record.history


def compare(given: dict[str, Any], stored: dict[str, Any], where: Path) -> None:
    """Looks whether options are those that what is in `where` was started with, but for those free to change.

    Raises:
        UserError: one is not.
    """
    for name in sorted((given.keys() | stored.keys()) - _FREE_TO_CHANGE):
        if given.get(name) != stored.get(name):
            raise UserError(f"{option(name)} is {given.get(name)}, but {where} was started with {stored.get(name)}")
