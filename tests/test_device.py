"""Runs on another device. Here it is "meta", which computes nothing: what counts is where tensors are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import image_folder
from scenes import segmentation_folder
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnas.errors import UserError
from fastnas.genotype import AUTO_DEEPLAB, DARTS_V2, AutoDeepLabGenotype
from fastnas.nn import (
    AutoDeepLabNetwork,
    AutoDeepLabSupernet,
    DartsNetwork,
    DartsSupernet,
    GdasSupernet,
    PCDartsSupernet,
)
from fastnas.search import auto_deeplab, auto_deeplab_retrain, bilevel, driver, retrain, segmentation_driver
from fastnas.search.config import RetrainConfig
from fastnas.search.device import device_of, find_device, on_device
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.strategies import STRATEGIES

META = torch.device("meta")


class Strays(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations whose results are elsewhere."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        elsewhere = any(isinstance(t, Tensor) and t.device != META for t in tree_leaves(out))
        self.found += [str(func)] if elsewhere else []
        return out


class Drawn(GdasSupernet):
    def _draw(self, alphas: Tensor) -> tuple[Tensor, list[int]]:  # "meta" draws nothing
        return alphas[:, 0], [5] * len(alphas)


@pytest.mark.parametrize(
    ("make", "pixels"),
    [
        (lambda: DartsSupernet(2, 1, 3, backend="reference"), False),
        (lambda: PCDartsSupernet(4, 1, 3, backend="reference"), False),
        (lambda: Drawn(2, 2, 3, backend="reference"), False),
        (lambda: DartsNetwork(DARTS_V2, 2, 3, 3, drop_path=0.5), False),
        (lambda: AutoDeepLabSupernet(2, 1, 2, 3, backend="reference"), True),
        (lambda: AutoDeepLabSupernet(2, 2, 2, 3, memory="lean", backend="reference", atrous="dense"), True),
        (lambda: AutoDeepLabNetwork(AutoDeepLabGenotype(AUTO_DEEPLAB.cell, (1, 0)), 2, 3, drop_path=0.5), True),
    ],
)
def test_a_step_makes_every_tensor_on_the_device(
    make: Callable[[], nn.Module], pixels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which does not know "meta"
    network = make().to(META)
    batch = (torch.randn(2, 3, 17, 20), torch.randint(3, (2, 17, 20) if pixels else (2,)))
    images, labels = next(on_device(iter([batch]), device_of(network)))
    with Strays() as strays:
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    assert strays.found == []
    assert images.device == labels.device == META


class ArrivedError(Exception):
    pass


def arrive(parameters: Iterable[nn.Parameter], *_: Any) -> None:
    raise ArrivedError({p.device for p in parameters})


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only device is "cuda:1", which is "meta"; a run ends where it makes its optimiser."""
    for module in ("driver", "bilevel", "device"):
        monkeypatch.setattr(f"fastnas.search.{module}.find_device", lambda name: {"cuda:1": META}[name])
    for module in (bilevel, retrain):
        monkeypatch.setattr(module, "Descent", arrive)
    for module in (auto_deeplab, auto_deeplab_retrain):
        monkeypatch.setattr(module, "StepDescent", arrive)


@pytest.mark.usefixtures("arrivals")
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"fixed"}))  # which trains nothing
def test_every_strategy_brings_its_network_to_the_device(strategy: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": str(image_folder(tmp_path / "data")), "device": "cuda:1", "batch_size": 2}
    options |= {"samples": 2} if strategy == "random" else {"backend": "reference"}
    config = STRATEGIES[strategy].options(strategy=strategy, channels=4, layers=3, **options)
    with pytest.raises(ArrivedError) as arrived:
        driver.search(config, tmp_path / "out")
    assert arrived.value.args == ({META},)


@pytest.mark.usefixtures("arrivals")
@pytest.mark.parametrize("run", ["retrain", "search auto-deeplab", "retrain auto-deeplab"])
def test_networks_are_brought_to_the_device(run: str, tmp_path: Path) -> None:
    data = image_folder(tmp_path / "data") if run == "retrain" else segmentation_folder(tmp_path / "data")
    options: dict[str, Any] = {"data": str(data), "device": "cuda:1", "batch_size": 2}
    start: Callable[..., Any]
    if run == "retrain":
        start = partial(driver.retrain, DARTS_V2, RetrainConfig(**options))
    elif run == "search auto-deeplab":
        start = partial(segmentation_driver.search, TrellisSearchConfig(backend="reference", layers=3, **options))
    else:
        start = partial(segmentation_driver.retrain, AUTO_DEEPLAB, TrellisRetrainConfig(**options))
    with pytest.raises(ArrivedError) as arrived:
        start(tmp_path / "out")
    assert arrived.value.args == ({META},)


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, names in ((0, {"auto": "cpu", "cpu": "cpu"}), (2, {"auto": "cuda:0", "cpu": "cpu", "cuda:1": "cuda:1"})):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert {name: str(find_device(name)) for name in names} == names
    with pytest.raises(UserError, match=r"--device is cuda:2, but the last of 2 is cuda:1"):
        find_device("cuda:2")
