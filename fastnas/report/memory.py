"""What a search's step takes beside stock PyTorch: memory as predicted, time as measured here and now."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastnas.nn import AutoDeepLabSupernet, DartsSupernet
from fastnas.plan import MODES, Described, Size, Step, make_plan
from fastnas.report.entry import Entry
from fastnas.search.strategies import find_strategy
from fastnas.search.strategies.darts import Darts
from fastnas.threads import using_threads

_ROUNDS = 3


@dataclass(frozen=True)
class Search:
    """A search network and its batch: what a prediction and a measurement are made of."""

    kind: str
    sizes: dict[str, int]
    batch: Size


def search_of(entry: Entry) -> Search | None:
    """None for a training, and for a search whose network is not planned: of another strategy, or with dense atrous."""
    config, facts = entry.config, entry.record.facts
    if not entry.searched:
        return None
    if entry.record.command == "search auto-deeplab":
        if config.get("atrous") == "dense":
            return None
        sizes = {name: config[name] for name in ("filters", "steps", "layers")} | {"num_classes": len(facts["classes"])}
        return Search("auto-deeplab", sizes, Size(config["batch_size"], config["crop"], config["crop"]))
    strategy: Any = find_strategy(config.get("strategy", "darts"))
    if getattr(strategy, "supernet", None) is not Darts.supernet:
        return None
    sizes = {"channels": config["channels"], "layers": config["layers"], "num_classes": len(facts["classes"])}
    return Search("darts", {**sizes, "in_channels": facts["channels"]}, Size(config["batch_size"], *facts["size"]))


def predicted(search: Search, threads: int) -> dict[str, Step]:
    """Memory of a step on a CPU in both modes and of stock, by name.

    Raises:
        UserError: the compiled part, which is asked, is missing.
    """
    rows = make_plan(Described(search.kind, **search.sizes), search.batch, "cpu", threads, MODES, None)
    return {row.name: row.step for row in rows}


def measured(search: Search, memory: str, threads: int) -> dict[str, float]:
    """Seconds of forward and backward of a batch of noise on the CPU, in turn, medians: fused, and in plain PyTorch.

    Plain PyTorch is the backend "reference", candidate after candidate.
    """
    with torch.random.fork_rng(devices=[]), using_threads(threads):
        networks = {name: _network(search, memory, name) for name in ("auto", "reference")}
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for turn in range(_ROUNDS + 1):
            for name, network in networks.items():
                time = _step(network, search)
                seconds[name] += [time] if turn else []  # the first allocates
    return {name: median(times) for name, times in seconds.items()}


def _network(search: Search, memory: str, backend: str) -> nn.Module:
    sizes: dict[str, Any] = search.sizes
    kind = DartsSupernet if search.kind == "darts" else AutoDeepLabSupernet
    return kind(**sizes, memory=memory, backend=backend)


def _step(network: nn.Module, search: Search) -> float:
    batch, height, width = search.batch.batch, search.batch.height, search.batch.width
    images = torch.randn(batch, search.sizes.get("in_channels", 3), height, width)
    pixels = (height, width) if search.kind == "auto-deeplab" else ()
    labels = torch.randint(search.sizes["num_classes"], (batch, *pixels))
    network.zero_grad()
    start = perf_counter()
    F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    return perf_counter() - start
