"""`fastnas.accelerate` looks once at what is alike, and only at what is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import stock
import torch
from foreign import C
from swapped import assert_same, pair, weights, x
from torch import Tensor, nn

import fastnas
from fastnas.swap import apply
from fastnas.swap.alike import fingerprint, signature
from fastnas.swap.calls import Arguments
from fastnas.swap.report import Cost


def edge() -> stock.MixedOp:
    return stock.MixedOp(C, 1)


CHANGES: dict[str, Callable[[stock.MixedOp], object]] = {
    "hook": lambda m: m._ops[4].op[1].register_forward_hook(lambda *_: None),
    "momentum": lambda m: setattr(m._ops[4].op[3], "momentum", 0.3),
    "eps": lambda m: setattr(m._ops[4].op[3], "eps", 0.3),
    "dilation": lambda m: setattr(m._ops[4].op[1], "dilation", (3, 3)),
    "replaced": lambda m: setattr(m._ops[4].op, "4", nn.Identity()),
    "shared weight": lambda m: setattr(m._ops[4].op, "6", m._ops[4].op[2]),
    "flag": lambda m: setattr(m, "flag", True),
    "function": lambda m: setattr(m, "function", lambda x: x),
    "buffer": lambda m: m.register_buffer("gate", torch.zeros(2)),
    "frozen": lambda m: m._ops[4].op[1].weight.requires_grad_(False),
    "dtype": lambda m: m.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(change: Callable[[stock.MixedOp], object]) -> None:
    other = edge()
    assert fingerprint(edge()) == fingerprint(other)
    change(other)
    assert fingerprint(edge()) != fingerprint(other)


@pytest.mark.parametrize("as_buffer", [True, False])
def test_values_that_code_may_read_are_compared(as_buffer: bool) -> None:
    def masked(*mask: float) -> nn.Module:
        m = edge()
        if as_buffer:
            m.register_buffer("mask", torch.tensor(mask))
        else:
            m.mask = torch.tensor(mask)
        return m

    assert fingerprint(masked(0, 1)) == fingerprint(masked(0, 1))
    assert fingerprint(masked(0, 1)) != fingerprint(masked(1, 0))


def test_calls_that_are_alike() -> None:
    image = torch.randn(2, C, 8, 8)
    assert signature(((image, 1), {})) == signature(((torch.zeros(2, C, 8, 8), 1), {}))
    for other in (
        (image, 2),
        (image, 1.0),
        (image[:1], 1),
        (image.double(), 1),
        (image.clone().requires_grad_(), 1),
        (image.to(memory_format=torch.channels_last), 1),
        ([image], 1),
    ):
        assert signature(((image, 1), {})) != signature((other, {}))
    assert signature(((image, image), {})) != signature(((image, image.clone()), {}))
    assert signature(torch.tensor([0])) != signature(torch.tensor([1]))


def test_of_regions_that_are_alike_one_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[nn.Module] = []
    true = apply.verify

    def verify(region: nn.Module, arguments: Arguments) -> float:
        verified.append(region)
        return true(region, arguments)

    monkeypatch.setattr(apply, "verify", verify)
    theirs, ours = pair(nn.ModuleList([edge(), edge(), stock.MixedOp(2 * C, 1), stock.MixedOp(C, 2)]))
    report = fastnas.accelerate(ours, strict=True)
    assert len(report.fused) == 4
    assert verified == [ours[0], ours[2], ours[3]]
    for mine, own in zip(ours, theirs, strict=True):
        assert_same(mine, own, (x(2 * C if own is theirs[2] else C), weights()))


def test_of_regions_that_are_alike_one_is_measured_within_steps_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = edge(), edge()

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x, weights), weights)
            return out

    measured: list[nn.Module] = []
    whole = iter((Cost(5.0, 0), Cost(3.0, 0)))
    within = iter(((Cost(2.0, 0), Cost(2.5, 0)), (Cost(1.0, 0), Cost(1.5, 0))))

    def costs(module: nn.Module, _: Any, parts: Iterable[nn.Module], **__: Any) -> tuple[Cost, dict[nn.Module, Cost]]:
        measured.append(module)
        return next(whole), dict(zip(parts, next(within), strict=True))

    monkeypatch.setattr(apply, "costs", costs)
    model = Twice()
    report = fastnas.accelerate(model, example_inputs=(torch.randn(2, C, 8, 8), torch.rand(8)))
    assert measured == [model, model]
    assert (report.before, report.after) == (Cost(5.0, 0), Cost(3.0, 0))
    assert [(e.before, e.after) for e in report.fused] == [(Cost(2.0, 0), Cost(1.0, 0))] * 2


def test_what_differs_is_refused_wherever_it_is() -> None:
    class Counts(stock.MixedOp):
        """What it returns depends on of which class its candidates' results are."""

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            out: Tensor = super().forward(x, weights)
            return out if type(self._ops[4](x)) is Tensor else 2 * out

    report = fastnas.accelerate(nn.ModuleList([Counts(C, 1), Counts(C, 1)]))
    assert not report.fused
    assert len(report.left) == 2


@pytest.mark.parametrize(("size", "seen"), [(16, 8), (32, 8), (33, 9), (35, 35), (40, 20)])
def test_verified_on_smaller_images_where_sides_divide(
    size: int, seen: int, monkeypatch: pytest.MonkeyPatch, unmeasured: None
) -> None:
    sizes: set[int] = set()

    class Watched(stock.MixedOp):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            if x.dtype == torch.float64:
                sizes.add(x.shape[2])
            out: Tensor = super().forward(x, weights)
            return out

    assert fastnas.accelerate(Watched(C, 1), example_inputs=(torch.randn(2, C, size, size), torch.rand(8))).fused
    assert sizes == {seen}


def test_code_made_for_one_size_is_verified_on_it(unmeasured: None) -> None:
    class Fixed(stock.MixedOp):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            out: Tensor = super().forward(x, weights)
            return out.reshape(len(x), C, 16, 16)

    theirs, ours = pair(Fixed(C, 1))
    assert fastnas.accelerate(ours, example_inputs=(x(C, 16), weights())).fused
    assert_same(ours, theirs, (x(C, 16), weights()))
