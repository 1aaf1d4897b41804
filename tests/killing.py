"""Runs in processes of their own, which are killed with SIGKILL and resumed."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from rich.console import Console
from runs import image_folder, retrain_config, search_config
from scenes import segmentation_folder

from fastnas.genotype import DARTS_V2
from fastnas.search import driver, segmentation_driver
from fastnas.search.config import CONFIG
from fastnas.search.segmentation_config import TrellisSearchConfig

# A server that has imported PyTorch, and what optimisers import of it, forks each process: it lives for the run alone.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "fastnas.search.segmentation_driver",
        "fastnas.search.bilevel",
        "torch._dynamo",
        "torch.distributed.elastic.multiprocessing.api",
        "torch.utils.tensorboard.summary",
    ]
)

Run = Callable[[Path, Path, bool], None]
"""Takes a folder with images, the run's folder, and whether to resume."""


def make_images(root: Path) -> None:
    """What the runs below read."""
    image_folder(root / "images")
    segmentation_folder(root / "scenes", train=9)


def search(root: Path, out: Path, resume: bool) -> None:
    """A DARTS search."""
    driver.search(search_config(root / "images", epochs=4), out, resume, Console(file=io.StringIO()))


def retrain(root: Path, out: Path, resume: bool) -> None:
    """A training, with all that is random in one."""
    config = retrain_config(root / "images", epochs=4, drop_path=0.5, cutout=2, padding=1)
    driver.retrain(DARTS_V2, config, out, resume, Console(file=io.StringIO()))


def auto_deeplab(root: Path, out: Path, resume: bool) -> None:
    """A search of Auto-DeepLab."""
    options = {"filters": 2, "steps": 1, "layers": 2, "crop": 9, "threads": 1, "scale_min": 0.5, "scale_max": 2.0}
    config = TrellisSearchConfig(data=str(root / "scenes"), epochs=4, arch_start=1, **options)
    segmentation_driver.search(config, out, resume, Console(file=io.StringIO()))


RUNS: tuple[Run, ...] = (search, retrain, auto_deeplab)


def start(run: Run, root: Path, out: Path, die_at: tuple[str, str, int] | None = None) -> BaseProcess:
    """Starts `run`, or resumes it where it has begun.

    Args:
        die_at: a function of `os`, the end of its last argument, and the call with that, from 1, before which the
            process kills itself.
    """
    process = CONTEXT.Process(target=_go, args=(run, root, out, die_at))
    process.start()
    return process


def ended(process: BaseProcess) -> bool:
    """Waits for the process; whether it came to its end, and was not killed."""
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"the run ended with {process.exitcode}; its error is above")
    return process.exitcode == 0


def _go(run: Run, root: Path, out: Path, die_at: tuple[str, str, int] | None) -> None:
    torch.set_num_threads(1)
    if die_at:
        _arm(*die_at)
    run(root, out, (out / CONFIG).exists())


def _arm(name: str, last: str, call: int) -> None:
    function, calls = getattr(os, name), [0]

    def deadly(*args: object, **options: object) -> object:
        calls[0] += str(args[-1]).endswith(last)
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    setattr(os, name, deadly)
