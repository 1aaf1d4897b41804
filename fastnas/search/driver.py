"""The two runs of the product, from configuration to result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from fastnas.data import ImageData, load_data
from fastnas.errors import UserError
from fastnas.genotype import Genotype, dumps
from fastnas.nn import AutoDeepLabNetwork, DartsNetwork, count
from fastnas.ops.backends import BackendError, choose
from fastnas.search import processes
from fastnas.search.alphas import decode, kept_row
from fastnas.search.checkpoint import to_bytes
from fastnas.search.config import GENOTYPE, ClassificationConfig, RetrainConfig, RunConfig, StrategyConfig
from fastnas.search.device import find_device
from fastnas.search.display import Display
from fastnas.search.files import write_atomically
from fastnas.search.launch import launched
from fastnas.search.loggers import check_loggers, make_loggers
from fastnas.search.loop import Callback, Task, Verdict, train
from fastnas.search.performance import Performance
from fastnas.search.retrain import BestWeights, Retraining
from fastnas.search.run import PERFORMANCE, RESULT, Row, Run
from fastnas.search.strategies import make_strategy
from fastnas.threads import using_threads

BEST, LAST = "best.pt", "last.pt"


def search(
    config: StrategyConfig,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    data: ImageData | None = None,
    callbacks: Sequence[Callback] = (),
) -> Genotype:
    """Searches an architecture.

    Leaves config.json, checkpoint.pt, history.jsonl and genotype.json in `out`.

    Args:
        config: the `options` of the strategy that it names, see `fastnas.search.strategies`.
        out: the run's folder; without `resume` there must be no run in it.
        resume: goes on with the run in `out`, which must have been started with the same configuration.
        console: where progress is shown; None for the standard output.
        data: the images, where `config.data` is their name alone; None for those that it names.
        callbacks: are told how the run goes on.

    Raises:
        UserError: something is wrong with the options, the images or a file.
        InterruptError: Ctrl-C.
    """
    with Run(out, "search") as run:
        data, config = _prepare(run, config, resume, data)
        strategy = make_strategy(config)
        with reproducible(config):
            task = strategy.task(data)
            run.begin(config, data.describe())
            history = run_epochs(run, task, strategy.epochs, callbacks, console, strategy.verdict)
        genotype = decode(kept_row(history))
        write_atomically(out / GENOTYPE, dumps(genotype).encode())
    return genotype


def retrain(
    genotype: Genotype,
    config: RetrainConfig,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    data: ImageData | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains the network of `genotype`.

    Leaves the same in `out` as a search, and best.pt, last.pt and result.json.

    Args:
        genotype: what a search found.
        config, out, resume, console, data, callbacks: as for `search`.

    Returns:
        The content of result.json.

    Raises:
        UserError: something is wrong with the options, the images or a file.
        InterruptError: Ctrl-C.
    """
    with Run(out, "retrain") as run:
        data, config = _prepare(run, config, resume, data)
        shape = (config.channels, config.layers, len(data.classes))
        with reproducible(config) as device:
            network = DartsNetwork(
                genotype, *shape, auxiliary=config.auxiliary, stem=config.stem, in_channels=data.channels
            )
            task = Retraining(network.to(device), data, config)
            run.begin(config, data.describe() | {"genotype": dumps(genotype)})
            return run_training(run, task, config.epochs, dumps(genotype), data, "val_accuracy", console, callbacks)


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)
Config = TypeVar("Config", bound=ClassificationConfig)


def decide(config: AnyConfig, choices: Mapping[str, Any]) -> AnyConfig:
    """The configuration with `choices` for those of its options that were left open."""
    chosen = {name: value for name, value in choices.items() if getattr(config, name, value) is None}
    return config.model_copy(update=chosen)


def settle(config: Config, data: ImageData) -> Config:
    """Decides the options that were left open, as their help texts say."""
    varied = getattr(config, "augment", "cifar") == "imagenet"
    side = 0 if varied else min(data.size)
    choices = {
        "padding": side // 8,
        "mirror": data.mirrored,
        "threads": torch.get_num_threads(),
        "cutout": side // 2,
    }
    return decide(config, choices)


def _prepare(run: Run, config: Config, resume: bool, data: ImageData | None) -> tuple[ImageData, Config]:
    config = run.check(config, resume)
    check_place(config)
    data = data or load_data(config.data, config.image_size, getattr(config, "augment", "cifar"))
    return data, settle(config, data)


@contextmanager
def reproducible(config: RunConfig) -> Iterator[torch.device]:
    """Seeds PyTorch, sets its threads and its GPU, and restores all: the caller's program goes on as before.

    Inside, the processes that torchrun started exchange what they compute.

    Yields the device to compute on.
    """
    device = find_device(config.device)
    gpus = [device] if device.type == "cuda" else []
    place = torch.cuda.device(device) if gpus else nullcontext()
    number = config.threads or torch.get_num_threads()
    with place, processes.joined(device), torch.random.fork_rng(gpus), using_threads(number):
        torch.manual_seed(config.seed)
        yield device


def run_epochs(
    run: Run,
    task: Task,
    epochs: int,
    callbacks: Sequence[Callback],
    console: Console | None,
    verdict: Verdict = lambda history: {},
) -> list[Row]:
    """Trains, shows it on the console and to the loggers, notes its performance, and returns the history."""
    display, performance = Display(console or Console(), epochs), Performance(run.folder / PERFORMANCE)
    return train(task, run, epochs, [*callbacks, display, *make_loggers(run), performance], verdict)


def check_place(config: RunConfig) -> None:
    """Finds, before any work, what this machine or the processes of the run cannot do.

    Raises:
        UserError: see `check_device`, `check_shares` and `check_loggers`.
    """
    check_device(config)
    check_shares(config)
    check_loggers(config)


def check_device(config: RunConfig) -> None:
    """Refuses a device that is not here, and a search's backend that cannot run on it.

    Raises:
        UserError: the message says why.
    """
    device = find_device(config.device)
    try:
        choose(getattr(config, "backend", "reference"), torch.empty(0, device=device))
    except BackendError as error:
        raise UserError(f"{error}; 'fastnas info' lists those that can") from error


def check_shares(config: RunConfig) -> None:
    """Refuses a batch that the processes of the run cannot share; one image alone may have no batch statistics.

    Raises:
        UserError: the message has the number of processes.
    """
    parts, field = launched().count, type(config).model_fields.get("batch_size")
    if parts == 1 or field is None:
        return
    size = config.model_dump()["batch_size"]
    fewest: int = next(limit.ge for limit in field.metadata if hasattr(limit, "ge"))
    if size % parts:
        raise UserError(f"--batch-size is {size}, which {parts} processes cannot share; expected a multiple of {parts}")
    if size // parts < fewest:
        raise UserError(f"--batch-size is {size} for {parts} processes; expected at least {fewest * parts}")


class Training(Task, Protocol):
    """A task that trains one network."""

    @property
    def network(self) -> DartsNetwork | AutoDeepLabNetwork:
        """What is trained."""


class Described(Protocol):
    """What a result says of its data, classified images or labelled pixels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel."""

    @property
    def size(self) -> tuple[int, int]:
        """H and W."""

    @property
    def train(self) -> Sized:
        """Training images."""

    @property
    def val(self) -> Sized:
        """Validation images."""


def run_training(
    run: Run,
    task: Training,
    epochs: int,
    genotype: str,
    data: Described,
    figure: str,
    console: Console | None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains the network of a run that has begun, and writes its genotype, its weights and result.json.

    Args:
        genotype: the content of genotype.json.
        figure: the key of the history's rows by which the best epoch is chosen.

    Returns:
        The content of result.json.
    """
    out, network = run.folder, task.network
    write_atomically(out / GENOTYPE, genotype.encode())
    best_weights = BestWeights(network, out / BEST, figure)
    history = run_epochs(run, task, epochs, [*callbacks, best_weights], console)
    write_atomically(out / LAST, to_bytes(network.state_dict()))
    best = max(history, key=lambda row: float(row[figure]))
    mean, std = (values.tolist() for values in data.statistics)
    result = {
        f"best_{figure}": best[figure],
        "best_epoch": best["epoch"],
        f"last_{figure}": history[-1][figure],
        "epochs": len(history),
        **count(network, len(mean), data.size)._asdict(),
        "train_images": len(data.train),
        "val_images": len(data.val),
        "classes": list(data.classes),
        "mean": mean,
        "std": std,
        "size": list(data.size),
    }
    write_atomically(out / RESULT, (json.dumps(result, indent=2) + "\n").encode())
    return result
