"""What `fastnas search` and `fastnas retrain` do, for Python programs: docs/api.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from fastnas.data import ImageData
from fastnas.data.datasets import from_datasets
from fastnas.errors import UserError
from fastnas.genotype import AutoDeepLabGenotype, Genotype, GenotypeError, load
from fastnas.search import driver, segmentation_driver
from fastnas.search.alphas import kept_row
from fastnas.search.config import RetrainConfig, make_config
from fastnas.search.loop import Callback
from fastnas.search.options import Method, Options, genotype_file, load_genotype, search_config, trellis_search_config
from fastnas.search.repeat import RepeatResult
from fastnas.search.repeat import repeat as run_repeatedly
from fastnas.search.run import Row, numbers, read_history
from fastnas.search.segmentation_config import TrellisRetrainConfig

Data = str | Path | tuple[Dataset[Any], Dataset[Any]]
AnyGenotype = Genotype | AutoDeepLabGenotype


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        folder: where all of it lies, see docs/search.md.
        genotype: what was found.
        alphas: α of the epoch that the genotype is from, (edges, 8): `normal` and `reduce`; of Auto-DeepLab `cell`, and
            β as `beta`, (layers, 4, 3). Empty where no α was trained.
        metrics: the figures of that epoch.
        history: a row an epoch.
    """

    folder: Path
    genotype: AnyGenotype
    alphas: dict[str, Tensor]
    metrics: dict[str, float]
    history: list[Row]


@dataclass(frozen=True)
class RetrainResult:
    """What a training reached.

    Attributes:
        folder: where all of it lies; `best.pt` and `last.pt` are the weights.
        genotype: what was trained.
        metrics: the content of result.json.
        history: a row an epoch.
    """

    folder: Path
    genotype: AnyGenotype
    metrics: dict[str, Any]
    history: list[Row]


def search(
    data: Data | None = None,
    *,
    out: str | Path,
    method: Method = "darts",
    preset: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> SearchResult:
    """Searches an architecture.

    Args:
        data: what `--data` takes (docs/data.md), or two datasets of PyTorch, for training and validation, see
            `fastnas.data.datasets.from_datasets`. A run to resume knows the former, and needs the latter again.
        out: the run's folder, made if missing.
        method: what is searched, a classifier or a network for segmentation.
        preset, config: settings of a paper, and a file with options; `options` win over `config`, that over `preset`.
        resume: goes on with the run in `out`.
        callbacks: are told how the run goes on, before anything of an epoch is written.
        progress: whether the standard output shows the epochs.
        options: those of the command line, `batch_size` for `--batch-size`; types are not converted.

    Raises:
        UserError: something is wrong with the options, the images or a file; the message says what.
        InterruptError: Ctrl-C; what was saved last is complete.
    """
    folder, console = Path(out), Console(quiet=not progress)
    name, images = _named(data, _method(method))
    given = _options("search", method, name, config, preset, options)
    genotype: AnyGenotype
    if method == "darts":
        checked = search_config(given, folder, resume)
        genotype = driver.search(checked, folder, resume, console, images, callbacks)
    else:
        trellis = trellis_search_config(given, folder, resume)
        genotype = segmentation_driver.search(trellis, folder, resume, console, callbacks)
    _, history = read_history(folder)
    row = kept_row(history)
    tables = row.get("alpha", {}) | ({"beta": row["beta"]} if "beta" in row else {})
    alphas = {name: torch.tensor(table) for name, table in tables.items()}
    return SearchResult(folder, genotype, alphas, numbers(row), history)


def retrain(
    source: SearchResult | AnyGenotype | str | Path | None = None,
    data: Data | None = None,
    *,
    out: str | Path,
    preset: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> RetrainResult:
    """Trains a found network from scratch.

    Args:
        source: what a search returned, its folder, a genotype or a file of one; None for a run to resume.
        data: as for `search`; without it that of the search.
        out, preset, config, resume, callbacks, progress, options: as for `search`.

    Raises:
        UserError, InterruptError: as for `search`.
    """
    folder, console = Path(out), Console(quiet=not progress)
    origin = source.folder if isinstance(source, SearchResult) else source
    genotype = origin if isinstance(origin, AnyGenotype) else _found(Path(origin or out))
    method: Method = "darts" if isinstance(genotype, Genotype) else "auto-deeplab"
    name, images = _named(data, method)
    given = _options("retrain", method, name, config, preset, options)
    command = _command("retrain", method)
    if resume:
        given = given.resumed(command, folder)
    elif origin is None:
        raise UserError("source is missing; expected what a search returned or left, or a genotype")
    elif not isinstance(origin, AnyGenotype):
        given = given.inherited(command, Path(origin))
    if isinstance(genotype, Genotype):
        checked = make_config(RetrainConfig, given.values, given.origins)
        metrics = driver.retrain(genotype, checked, folder, resume, console, images, callbacks)
    else:
        trellis = make_config(TrellisRetrainConfig, given.values, given.origins)
        metrics = segmentation_driver.retrain(genotype, trellis, folder, resume, console, callbacks)
    return RetrainResult(folder, genotype, metrics, read_history(folder)[1])


def repeat(
    *,
    out: str | Path,
    search: Mapping[str, Any] | None = None,
    retrain: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] | None = None,
    method: Method = "darts",
    resume: bool = False,
    progress: bool = True,
) -> RepeatResult:
    """Searches an architecture and trains the found network, once with each of several seeds.

    Args:
        out: the folder of all runs, made if missing.
        search, retrain: what `search` and `retrain` take by name: data, preset, config and options, but no seed.
        seeds: how many, counted from 0, or which; None for 3, or those that `out` was begun with.
        method, progress: as for `search`.
        resume: goes on with what is in `out`; options may be left out, and seeds be added.

    Raises:
        UserError, InterruptError: as for `search`.
    """
    searching, training = _part("search", _method(method), search or {}), _part("retrain", method, retrain or {})
    return run_repeatedly(searching, training, seeds, Path(out), method, resume, Console(quiet=not progress))


def _part(command: str, method: Method, given: Mapping[str, Any]) -> Options:
    """The options of the search, or of the training, that is repeated."""
    values = dict(given)
    if "seed" in values:
        raise UserError(f"fastnas.repeat: {command} has a seed; expected seeds beside it")
    data, config, preset = (values.pop(name, None) for name in ("data", "config", "preset"))
    if isinstance(data, tuple):
        raise UserError(f"fastnas.repeat: data of {command} is a pair of datasets; expected a folder or a name")
    return _options(command, method, None if data is None else str(data), config, preset, values)


def _method(method: Method) -> Method:
    if method not in get_args(Method):
        raise UserError(f"method is {method!r}; expected one of {', '.join(get_args(Method))}")
    return method


def _command(command: str, method: Method) -> str:
    return command if method == "darts" else f"{command} {method}"


def _named(data: Data | None, method: Method) -> tuple[str | None, ImageData | None]:
    """What the configuration calls the images, and the images themselves if they were given."""
    if not isinstance(data, tuple):
        return None if data is None else str(data), None
    if method != "darts":
        raise UserError(f"data is a pair of datasets; {method} takes the name of images with labelled pixels")
    images = from_datasets(*data)
    return images.name, images


def _options(
    command: str,
    method: Method,
    data: str | None,
    config: str | Path | None,
    preset: str | None,
    options: dict[str, Any],
) -> Options:
    values = options | ({} if data is None else {"data": data})
    given = Options(values, dict.fromkeys(values, f"fastnas.{command}"))
    return given.after_files(_command(command, method), None if config is None else Path(config), preset)


def _found(source: Path) -> AnyGenotype:
    path = genotype_file(source)
    try:
        return load(path, AutoDeepLabGenotype)
    except GenotypeError:
        return load_genotype(path, Genotype)
