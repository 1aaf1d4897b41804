"""A search and the training of what it found, once with each of several seeds: docs/repeat.md."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from fastnas import __version__
from fastnas.errors import InterruptError, LostError, UserError, WriteError
from fastnas.search import driver, segmentation_driver
from fastnas.search.config import CONFIG, RetrainConfig, RunConfig, make_config, read_config
from fastnas.search.files import make_run_folder, write_atomically
from fastnas.search.launch import launched
from fastnas.search.lock import LOCK, locked
from fastnas.search.options import Method, Options, begun, inheritance, search_config, trellis_search_config
from fastnas.search.performance import read_performance, seconds
from fastnas.search.run import PERFORMANCE, RESULT, compare
from fastnas.search.segmentation_config import TrellisRetrainConfig

SEEDS = 3
SEARCH, NETWORK = "search", "network"


@dataclass(frozen=True)
class RepeatResult:
    """What came out with every seed.

    Attributes:
        folder: where all of it lies.
        runs: a row a seed: `seed`, accuracy or mIOU of the best and the last epoch, `parameters`, `multiply_adds`.
        mean: of each of these figures.
        deviation: of the sample, over n - 1; None with one seed.
        seconds: that search and training took with each seed, without reading the images.
    """

    folder: Path
    runs: list[dict[str, Any]]
    mean: dict[str, float]
    deviation: dict[str, float | None]
    seconds: list[tuple[float | None, float | None]]


@dataclass(frozen=True)
class _Kind:
    """What a method's runs are called, configured by, and done by."""

    suffix: str
    search: Callable[[Options, Path, bool], RunConfig]
    training: type[RunConfig]
    driver: Any  # the two modules take the same arguments, with configurations of their own


_KINDS: dict[Method, _Kind] = {
    "darts": _Kind("", search_config, RetrainConfig, driver),
    "auto-deeplab": _Kind(" auto-deeplab", trellis_search_config, TrellisRetrainConfig, segmentation_driver),
}


class _Study(BaseModel):
    """What config.json keeps: the options of both runs, without a seed."""

    seeds: list[int]
    search: dict[str, Any]
    retrain: dict[str, Any]


def repeat(
    search: Options,
    retrain: Options,
    seeds: int | Sequence[int] | None,
    out: Path,
    method: Method = "darts",
    resume: bool = False,
    console: Console | None = None,
) -> RepeatResult:
    """Searches and trains with each seed, in `out`/seed-N/search and `out`/seed-N/network, and writes result.json.

    Every run leaves the files that `fastnas search` or `fastnas retrain` leaves with the same seed.

    Args:
        search, retrain: what the user set; a seed among them is not looked at.
        seeds: how many, counted from 0, or which; None for 3, or those that were begun with.
        out: must hold no runs without `resume`.
        method: what is searched.
        resume: goes on with what is in `out`: what is done is kept, what was interrupted is gone on with.
        console: where progress is shown; None for the standard output.

    Raises:
        UserError: something is wrong with the options, the images or a file.
        InterruptError: Ctrl-C; what was saved last is complete.
    """
    kind, console = _KINDS[method], console or Console()
    command = f"repeat{kind.suffix}"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a folder")
    stored = _read(out, command) if resume else None
    if stored is None:
        _check_empty(out)
    else:
        search, retrain = begun(search, stored.search, out), retrain.after(stored.retrain, out / CONFIG)
    chosen = _chosen(stored.seeds if seeds is None and stored else seeds)
    configs = [_configure(kind, search, retrain, seed, out) for seed in chosen]
    shared = [config.model_dump(mode="json", exclude={"seed"}) for config in configs[0]]
    study = _Study(seeds=chosen, search=shared[0], retrain=shared[1])
    if stored:
        compare(study.search, stored.search, out)
        compare(study.retrain, stored.retrain, out)
    with _opened(out, study, command):
        runs = [_run(kind, *pair, out, console) for pair in configs]
        return _summary(out, runs)


def folders(out: Path, seed: int) -> tuple[Path, Path]:
    """Where the search and the training with `seed` are."""
    return out / f"seed-{seed}" / SEARCH, out / f"seed-{seed}" / NETWORK


def _chosen(seeds: int | Sequence[int] | None) -> list[int]:
    if seeds is None:
        seeds = SEEDS
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen:
        raise UserError(f"--seeds is {seeds}; expected at least one seed")
    if len(set(chosen)) < len(chosen):
        twice = next(seed for seed in chosen if chosen.count(seed) > 1)
        raise UserError(f"--seeds has {twice} twice; expected every seed once, it gives the same run again")
    return chosen


def _configure(kind: _Kind, search: Options, retrain: Options, seed: int, out: Path) -> tuple[RunConfig, RunConfig]:
    """The checked configurations of both runs, the training's with what it takes from its search."""
    config = kind.search(Options(search.values | {"seed": seed}, search.origins), out, False)
    values = retrain.values | {"seed": seed}
    if "data" not in values:
        values = inheritance(f"retrain{kind.suffix}", config.model_dump()) | values
    return config, make_config(kind.training, values, retrain.origins)


def _read(out: Path, command: str) -> _Study:
    try:
        return _Study.model_validate(read_config(out / CONFIG, command))
    except ValidationError as error:
        raise UserError(f"{out / CONFIG} is damaged: expected what 'fastnas {command}' wrote") from error


def _check_empty(out: Path) -> None:
    if launched().first and out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(f"{out} is not empty; choose another --out, or go on with it by --resume")


@contextmanager
def _opened(out: Path, study: _Study, command: str) -> Iterator[None]:
    """Keeps other processes out, notes what is to be run, and says how to go on with all of it where it breaks off."""
    make_run_folder(out)
    with locked(out):
        content = {"fastnas": __version__, "command": command, "config": study.model_dump()}
        write_atomically(out / CONFIG, (json.dumps(content, indent=2) + "\n").encode())
        follow = launched().command(f"{command} --out {shlex.quote(str(out))} --resume")
        try:
            yield
        except (InterruptError, LostError, WriteError) as error:
            raise type(error)(f"{error}; then, with all that is left: {follow}") from error
        except KeyboardInterrupt as error:
            raise InterruptError(f"interrupted; go on with: {follow}") from error


def _run(kind: _Kind, search: RunConfig, retrain: RunConfig, out: Path, console: Console) -> dict[str, Any]:
    """The row of a seed."""
    searched, trained = folders(out, search.seed)
    console.print(f"Seed {search.seed}, search", highlight=False)
    genotype = kind.driver.search(search, searched, (searched / CONFIG).exists(), console)
    console.print(f"Seed {search.seed}, training", highlight=False)
    result = kind.driver.retrain(genotype, retrain, trained, (trained / CONFIG).exists(), console)
    figures = [name for name in result if name.startswith(("best_val", "last_val"))]
    return {"seed": search.seed, **{name: result[name] for name in (*figures, "parameters", "multiply_adds")}}


def _summary(out: Path, runs: list[dict[str, Any]]) -> RepeatResult:
    """Writes result.json; times are not in it, so that it is the same whenever it was computed."""
    values = {name: [row[name] for row in runs] for name in runs[0] if name != "seed"}
    means = {name: mean(map(float, figures)) for name, figures in values.items()}
    deviations = {name: stdev(map(float, figures)) if len(runs) > 1 else None for name, figures in values.items()}
    result = {"runs": runs, "mean": means, "deviation": deviations}
    write_atomically(out / RESULT, (json.dumps(result, indent=2) + "\n").encode())
    return RepeatResult(out, runs, means, deviations, [_times(out, row["seed"]) for row in runs])


def _times(out: Path, seed: int) -> tuple[float | None, float | None]:
    searched, trained = (seconds(read_performance(folder / PERFORMANCE)) for folder in folders(out, seed))
    return searched, trained
