"""Small images and small runs, for the tests of data, search and command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastnas.errors import InterruptError
from fastnas.search.checkpoint import CHECKPOINT, PREVIOUS, read_checkpoint
from fastnas.search.config import RetrainConfig, SearchConfig
from fastnas.search.run import Run

CLASSES = ("bird", "cat")
TINY = {"epochs": 3, "channels": 2, "layers": 3, "batch_size": 4, "threads": 1}
TINY_OPTIONS = ["--epochs=3", "--channels=2", "--layers=3", "--batch-size=4", "--threads=1"]


def image_folder(
    root: Path,
    classes: Sequence[str] = CLASSES,
    *,
    train: int = 8,
    val: int = 3,
    size: tuple[int, int] = (6, 8),
    mode: str = "RGB",
) -> Path:
    """A folder of noisy images whose classes differ in brightness; `size` is (H, W)."""
    random = np.random.default_rng(0)
    shape = size if mode == "L" else (*size, 3)
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(60 * label, 60 * label + 150, shape).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def search_config(data: Path, **options: Any) -> SearchConfig:
    """A search of a second."""
    return SearchConfig(**{"data": str(data), **TINY, **options})


def retrain_config(data: Path, **options: Any) -> RetrainConfig:
    """A training of a second."""
    return RetrainConfig(**{"data": str(data), **TINY, **options})


@contextmanager
def stopped_before_saving(epoch: int) -> Iterator[None]:
    """What runs inside is stopped when an epoch is logged, but not saved."""
    save = Run.save

    def stopped(self: Run, trained: Any, history: list[dict[str, Any]]) -> None:
        if len(history) == epoch:
            raise KeyboardInterrupt
        save(self, trained, history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", stopped)
        with pytest.raises(InterruptError):
            yield


def files(folder: Path) -> dict[str, Any]:
    """The content of the files in a run's folder: the values in checkpoints, the bytes of all others.

    TensorBoard's events are left out, since they carry the time.
    """
    content: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file():
            saved = path.name in (CHECKPOINT, PREVIOUS)
            content[path.name] = _plain(read_checkpoint(path)) if saved else path.read_bytes()
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
