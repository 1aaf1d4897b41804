"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import torch._functorch.config

from fastnas.threads import using_threads

if TYPE_CHECKING:
    from interpreter import Guarded

if not torch.cuda.is_available():  # before anything imports Triton, which looks at it then
    os.environ.setdefault("TRITON_INTERPRET", "1")


# An error here, as on machines that set CI: elsewhere PyTorch only warns of results that share memory.
if hasattr(torch._functorch.config, "error_on_custom_op_aliasing"):  # PyTorch 2.6 does not look
    torch._functorch.config.error_on_custom_op_aliasing = True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=30, help="how many random cells are accelerated")
    parser.addoption("--thorough", action="store_true", help="also the tests that are more of the same and take long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Triton's interpreter takes longest by far: last of all, it would keep one of two processes waiting."""
    if not config.getoption("thorough"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    items.sort(key=lambda item: not item.path.name.startswith("test_triton"))


def pytest_collection_finish() -> None:
    gc.freeze()  # measurements collect garbage, and need not look at all that is imported each time


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fresh tensors are full of NaN, so that what a kernel fails to write shows."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[None]:
    """Triton's interpreter is as fast as it gets."""
    from interpreter import hurried

    with hurried():
        yield


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """What a GPU backend works on is full of NaN, and lies between zones that nobody may write."""
    from interpreter import Guarded

    from fastnas.ops import gpu, results

    guard = Guarded()
    output, statistics = results.output, results.statistics
    monkeypatch.setattr(gpu, "allocate", guard.allocate)
    monkeypatch.setattr(gpu, "Tensors", guard.tensors)
    monkeypatch.setattr(results, "output", lambda *args: guard.like(output(*args)))
    monkeypatch.setattr(results, "statistics", lambda *args: guard.like(statistics(*args)))
    yield guard
    guard.check()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tensors so small that threads would only wait for each other."""
    with using_threads(1):
        yield


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fastnas.accelerate` measures neither time nor memory, which takes longer than all that it does."""
    from fastnas.swap.report import Cost

    nothing = Cost(1.0, 0)
    monkeypatch.setattr("fastnas.swap.apply.cost", lambda *_, **__: nothing)
    monkeypatch.setattr("fastnas.swap.apply.costs", lambda *_, **__: (nothing, {}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes, which a module's tests only read."""
    from runs import image_folder

    return image_folder(tmp_path_factory.mktemp("data"))
