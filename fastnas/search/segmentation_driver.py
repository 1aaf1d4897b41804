"""Auto-DeepLab's two runs, from configuration to result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from fastnas.data.segmentation import SegmentationData, load_segmentation
from fastnas.genotype import AutoDeepLabGenotype, dumps
from fastnas.nn import AutoDeepLabNetwork, AutoDeepLabSupernet
from fastnas.search.auto_deeplab import AutoDeepLabSearch
from fastnas.search.auto_deeplab_retrain import AutoDeepLabRetraining
from fastnas.search.config import GENOTYPE
from fastnas.search.driver import check_place, decide, reproducible, run_epochs, run_training
from fastnas.search.files import write_atomically
from fastnas.search.loop import Callback
from fastnas.search.run import Run
from fastnas.search.segmentation_config import SegmentationConfig, TrellisRetrainConfig, TrellisSearchConfig

Config = TypeVar("Config", bound=SegmentationConfig)


def search(
    config: TrellisSearchConfig,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Sequence[Callback] = (),
) -> AutoDeepLabGenotype:
    """Searches a network for semantic segmentation.

    Leaves config.json, checkpoint.pt, history.jsonl and genotype.json in `out`.

    Args:
        config: see `TrellisSearchConfig`.
        out, resume, console, callbacks: as for `fastnas.search.driver.search`.

    Raises:
        UserError: something is wrong with the options, the images or a file.
        InterruptError: Ctrl-C.
    """
    with Run(out, "search auto-deeplab") as run:
        data, config = _prepare(run, config, resume)
        with reproducible(config) as device:
            network = AutoDeepLabSupernet(
                config.filters,
                config.steps,
                config.layers,
                len(data.classes),
                memory=config.memory,
                backend=config.backend,
                atrous=config.atrous,
            ).to(device)
            task = AutoDeepLabSearch(network, data, config)
            run.begin(config, data.describe())
            run_epochs(run, task, config.epochs, callbacks, console)
        genotype = network.genotype()
        write_atomically(out / GENOTYPE, dumps(genotype).encode())
    return genotype


def retrain(
    genotype: AutoDeepLabGenotype,
    config: TrellisRetrainConfig,
    out: Path,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains the network of `genotype`.

    Leaves the same in `out` as a search, and best.pt, last.pt and result.json.

    Args:
        genotype: what a search found.
        config, out, resume, console, callbacks: as for `search`.

    Returns:
        The content of result.json.

    Raises:
        UserError: something is wrong with the options, the images or a file.
        InterruptError: Ctrl-C.
    """
    with Run(out, "retrain auto-deeplab") as run:
        data, config = _prepare(run, config, resume)
        with reproducible(config) as device:
            network = make_network(genotype, config, data).to(device)
            task = AutoDeepLabRetraining(network, data, config)
            run.begin(config, data.describe() | {"genotype": dumps(genotype)})
            return run_training(run, task, config.epochs, dumps(genotype), data, "val_miou", console, callbacks)


def make_network(
    genotype: AutoDeepLabGenotype, config: TrellisRetrainConfig, data: SegmentationData
) -> AutoDeepLabNetwork:
    """The network that `retrain` trains."""
    return AutoDeepLabNetwork(genotype, config.filters, len(data.classes), atrous=config.atrous)


def settle(config: Config) -> Config:
    """Decides the options that were left open, as their help texts say."""
    choices = {"threads": torch.get_num_threads(), "arch_start": getattr(config, "epochs", 0) // 2}
    return decide(config, choices)


def _prepare(run: Run, config: Config, resume: bool) -> tuple[SegmentationData, Config]:
    config = settle(run.check(config, resume))
    check_place(config)
    return load_segmentation(config.data, config.scale), config
