"""What `fastnas.accelerate` reports, and twenty steps of training with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import count
from typing import Any

import foreign_networks
import pytest
import stock
import torch
import torch.nn.functional as F
from foreign import C
from swapped import TOLERANCE, pair
from torch import Tensor, nn

import fastnas
from fastnas.errors import UserError
from fastnas.swap import AccelerateError, Cost, apply
from fastnas.swap.calls import Arguments
from fastnas.swap.cost import slower
from fastnas.swap.modules import is_swapped


def test_the_report_says_what_was_done_and_what_it_saves(one_thread: None) -> None:
    network = foreign_networks.Darts()
    report = fastnas.accelerate(network, example_inputs=torch.randn(2, 3, 16, 16), strict=True)
    assert [e.name for e in report.fused] == ["cells.0", "cells.1", "cells.2"]
    assert all(e.candidates == 42 and e.error is not None and e.error < TOLERANCE for e in report.fused)
    assert report.before is not None
    assert report.after is not None
    assert report.after.saved < report.before.saved / 4
    assert "3 modules fused, with 126 candidates; 0 left" in str(report)


def test_modules_of_which_the_same_is_to_be_said_share_a_line() -> None:
    report = fastnas.accelerate(nn.ModuleList(stock.MixedOp(C, 1) for _ in range(3)))
    assert len(report.fused) == 3
    (line,) = [line for line in str(report).splitlines() if "fused  " in line]
    assert re.fullmatch(r"  fused  0 \(MixedOp\) and 2 like it: 8 candidates, error \de-\d\d", line), line


@pytest.mark.parametrize("given", [None, torch.randn(2, 3, 16, 16)], ids=["guessed", "given"])
def test_cells_of_a_wrapped_network_are_reported_one_by_one(given: Any, unmeasured: None) -> None:
    report = fastnas.accelerate(nn.DataParallel(foreign_networks.Darts()), example_inputs=given, strict=True)
    assert [e.name for e in report.fused] == ["module.cells.0", "module.cells.1", "module.cells.2"]


def test_calling_it_again_changes_the_memory_mode() -> None:
    module = stock.MixedOp(C, 1)
    saved = []
    for memory in ("fast", "lean"):
        report = fastnas.accelerate(module, memory=memory, example_inputs=(torch.randn(8, C, 16, 16), torch.rand(8)))
        assert report.after is not None
        saved.append(report.after.saved)
    assert saved[1] < saved[0]


def test_nothing_to_do() -> None:
    report = fastnas.accelerate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()))
    assert "it holds no candidate operation" in str(report)
    with pytest.raises(AccelerateError, match="no candidate"):
        fastnas.accelerate(nn.Linear(2, 2), strict=True)


@pytest.mark.parametrize("arguments", [{"memory": "big"}, {"backend": "tpu"}])
def test_unknown_choices_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        fastnas.accelerate(stock.MixedOp(C, 1), **arguments)


@pytest.mark.parametrize("style", [foreign_networks.Darts, foreign_networks.PCDarts])
def test_twenty_steps_from_one_seed(style: type[nn.Module], one_thread: None, unmeasured: None) -> None:
    networks = pair(style())
    fastnas.accelerate(networks[1], example_inputs=torch.randn(2, 3, 8, 8).double(), strict=True)
    losses, alphas = [], []
    for network in networks:
        torch.manual_seed(1)
        arch = [*network.alphas, *getattr(network, "betas", [])]
        sgd = torch.optim.SGD(network.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        adam = torch.optim.Adam(arch, 3e-3, betas=(0.5, 0.999))
        for _ in range(20):
            images, labels = torch.randn(4, 3, 8, 8).double(), torch.randint(foreign_networks.CLASSES, (4,))
            for optimiser in (adam, sgd):
                optimiser.zero_grad()
                loss = F.cross_entropy(network(images), labels)
                loss.backward()
                optimiser.step()
            losses.append(loss.item())
        alphas.append(arch)
    torch.testing.assert_close(losses[:20], losses[20:], rtol=TOLERANCE, atol=TOLERANCE)
    for a, b in zip(*alphas, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("how", "kept"), [({}, False), ({"strict": True}, True), ({"memory": "lean"}, True)], ids=["left", "strict", "lean"]
)
def test_what_would_be_slower_stays_as_it_was(how: dict[str, Any], kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((1.0, 2.0, 1.0, 2.0))  # of the model before and after, of the edge before and after
    monkeypatch.setattr(apply, "costs", lambda *_, **__: (Cost(next(seconds), 0), {}))
    monkeypatch.setattr(apply, "cost", lambda *_, **__: Cost(next(seconds), 0))
    monkeypatch.setattr(apply, "slower", lambda *_: "1.00 ms before, 2.00 ms after")
    edge = stock.MixedOp(C, 1)
    report = fastnas.accelerate(edge, example_inputs=(torch.randn(2, C, 8, 8), torch.rand(8)), **how)
    assert [e.reason for e in report.left] == [] if kept else ["it would be slower: 1.00 ms before, 2.00 ms after"]
    assert is_swapped(edge) is kept
    assert is_swapped(edge._ops[4]) is kept
    assert (report.after is not None) is kept


def test_parts_of_what_would_be_slower_are_tried_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = foreign_networks.Darts()
    slow = model.cells[0]
    seconds = map(float, count(1))  # every measurement takes longer than the last

    def costs(
        _: nn.Module, __: Arguments, parts: Iterable[nn.Module], **___: Any
    ) -> tuple[Cost, dict[nn.Module, Cost]]:
        return Cost(next(seconds), 0), {part: Cost(next(seconds), 0) for part in parts}

    monkeypatch.setattr(apply, "costs", costs)
    monkeypatch.setattr(apply, "slower", lambda region, _: "twice as long" if region is slow else None)
    report = fastnas.accelerate(model, example_inputs=torch.randn(2, 3, 16, 16))
    assert [(e.name, e.reason) for e in report.left] == [("cells.0", "it would be slower: twice as long")]
    edges = [e for e in report.fused if e.name.startswith("cells.0.")]
    assert edges
    assert all(e.error is not None and e.before and e.after for e in edges)
    assert not is_swapped(slow)
    assert {e.name for e in report.fused} - {e.name for e in edges} == {
        f"cells.{i}" for i in range(1, len(model.cells))
    }


class Large(nn.Sequential):
    """For more than two images there is no memory, as there is not on a GPU."""

    def forward(self, x: Tensor) -> Any:
        if torch.is_grad_enabled() and len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(x)


def test_what_needs_more_memory_than_there_is_as_it_was_written_is_accelerated() -> None:
    edge = stock.MixedOp(C, 1)
    edge._ops[4] = Large(edge._ops[4])
    report = fastnas.accelerate(edge, example_inputs=(torch.randn(3, C, 8, 8), torch.rand(8)), strict=True)
    (entry,) = report.fused
    assert (report.before, entry.before) == (None, None)
    assert report.after is not None
    assert entry.after is not None
    assert re.search(r"\n  model; out of memory → \d+\.\d ms, saved \d\.\d MB", str(report)), str(report)


def test_memory_that_does_not_suffice_on_the_operator_either_is_told() -> None:
    model = nn.ModuleDict({"edge": stock.MixedOp(C, 1), "head": Large()})
    model.forward = lambda x, weights: model["head"](model["edge"](x, weights))  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"example_inputs need more memory than there is: CUDA out of memory"):
        fastnas.accelerate(model, example_inputs=(torch.randn(3, C, 8, 8), torch.rand(8)))
    assert not any(map(is_swapped, model.modules()))


def test_slower_says_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = Arguments((torch.randn(2, C, 8, 8), torch.rand(8)), {})
    for after, expected in ((2.0, "1000.00 ms a step as it was written, 2000.00 ms on the operator"), (1.0, None)):
        clock = iter([0.0, 1.0, 0.0, after] * 7)
        monkeypatch.setattr("fastnas.swap.part.time.perf_counter", clock.__next__)
        assert slower(stock.MixedOp(C, 1), arguments) == expected


def test_nothing_imports_the_compiler() -> None:
    """It takes seconds."""
    code = (
        "import sys, torch, fastnas; from torch import nn; "
        "report = fastnas.accelerate(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU())); "
        "assert 'batch norm' in report.left[0].reason, report; "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_fastnas_does_not_import_torch() -> None:
    code = "import sys, fastnas; assert 'torch' not in sys.modules; fastnas.accelerate; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
