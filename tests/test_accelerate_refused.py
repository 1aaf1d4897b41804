"""`fastnas.accelerate` on look-alikes of candidates: they stay as they are, and the report says why."""

from __future__ import annotations

from collections.abc import Callable

import foreign
import pytest
import stock
import torch
from foreign import C, Spoilt, chain
from swapped import assert_same, pair, weights, x
from torch import Tensor, nn

import fastnas
from fastnas.swap import AccelerateError

LEFT = {
    "dilation": (lambda: chain(padding=3, dilation=3), "dilation 3"),
    "kernel": (lambda: chain(kernel_size=7, padding=6), "depthwise 7×7"),
    "padding": (lambda: nn.Sequential(chain(padding=0), nn.ZeroPad2d(2)), "does not end in a batch norm"),
    "circular": (lambda: chain(padding_mode="circular"), "pads with circular"),
    "biased pointwise": (lambda: chain(point_bias=True), "a convolution has a bias"),
    "grouped pointwise": (
        lambda: chain(point_groups=2),
        "a grouped (2 channels each) 1×1 convolution",
    ),
    "group norm": (lambda: chain(norm=lambda c: nn.GroupNorm(2, c)), "native_group_norm"),
    "spectral norm": (lambda: _spectral(), "parametrised"),  # noqa: PLW0108 # defined below
    "old spectral norm": (lambda: _old_spectral(), "hooks"),  # noqa: PLW0108
    "padded average": (lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(C)), "count_include_pad True"),
    "ceiling": (lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), nn.BatchNorm2d(C)), "ceil_mode True"),
    "pool of another size": (lambda: nn.MaxPool2d(5, 1, 2), "its pool has kernel (5, 5), expected (3, 3)"),
    "own forward": (lambda: _own_forward(), "batch norm"),  # noqa: PLW0108
    "dense": (lambda: chain(groups=1), "it has a dense 3×3 convolution of dilation 2; the operator has"),
    "padding by name": (lambda: chain(padding="same"), "has padding 'same', expected numbers"),
    "γ without β": (lambda: _half_affine(), "one of weight and bias only"),  # noqa: PLW0108
    "pool of a rectified input": (
        lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(C)),
        "a pool reads something else than the edge's input",
    ),
    "two convolutions without a norm between": (
        lambda: nn.Sequential(nn.ReLU(), *chain()[1:3], *chain()),
        "there is no batch norm between two stages",
    ),
    "wide inside": (lambda: _Wide(), "a candidate keeps its channels, this one has 4 and 8 inside"),  # noqa: PLW0108
    "dropout of probability 0": (
        lambda: nn.Sequential(*chain(), nn.Dropout(0.0)),
        "it holds a Dropout that does nothing now, but may when its attributes change",
    ),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.3)), "batch norm"),
}


def _spectral() -> nn.Module:
    module = chain()
    nn.utils.parametrizations.spectral_norm(module[2])
    return module


def _old_spectral() -> nn.Module:
    module = chain()
    nn.utils.spectral_norm(module[2])
    return module


def _half_affine() -> nn.Module:
    module = chain()
    module[3].bias = None
    return module


class Reduce(nn.Module):
    """Nearly a factorised reduce: ReLU, convolutions of two slices of the input, concatenated, batch norm."""

    def __init__(
        self, shift: int = 1, widths: tuple[int, ...] = (C // 2, C // 2), kernel: int = 1, turned: bool = False
    ) -> None:
        super().__init__()
        how = {"stride": 2, "padding": kernel // 2, "bias": False}
        self.convs = nn.ModuleList(nn.Conv2d(C, width, kernel, **how) for width in widths)
        self.norm = nn.BatchNorm2d(C)
        self.shift, self.turned = shift, turned

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        other = x[:, :, self.shift :, self.shift :]
        other = other.flip(3) if self.turned else other
        out: Tensor = self.norm(torch.cat([self.convs[0](x), *(conv(other) for conv in self.convs[1:])], 1))
        return out


class _Wide(nn.Sequential):
    """Separable, through twice as many channels."""

    def __init__(self) -> None:
        wide = chain(padding=1, dilation=1)
        wide[2], wide[3] = nn.Conv2d(C, 2 * C, 1, bias=False), nn.BatchNorm2d(2 * C)
        back = chain(2 * C, padding=1, dilation=1)
        back[2], back[3] = nn.Conv2d(2 * C, C, 1, bias=False), nn.BatchNorm2d(C)
        super().__init__(*wide, *back)


LEFT_OF_STRIDE_2 = {
    "turned": (lambda: Reduce(turned=True), "its factorised reduce reads aten.flip"),
    "three parts": (lambda: Reduce(widths=(C // 2, C // 4, C // 4)), "it concatenates 3 tensors along axis 1"),
    "unequal halves": (lambda: Reduce(widths=(C // 4, C - C // 4)), "the halves of its factorised reduce differ"),
    "3×3": (lambda: Reduce(kernel=3), "not a 1×1 one of stride 2"),
}


def _own_forward() -> nn.Module:
    module = chain()
    module[2] = foreign.OwnForward(C, C, 1, bias=False)
    return module


@pytest.mark.parametrize(("make", "reason"), LEFT.values(), ids=LEFT.keys())
def test_look_alikes_stay_and_say_why(make: Callable[[], nn.Module], reason: str) -> None:
    theirs, ours = pair(Spoilt(make()))
    report = fastnas.accelerate(ours)
    assert any(reason in (e.reason or "") for e in report.left), str(report)
    assert [e.candidates for e in report.fused] == [7]
    assert_same(ours, theirs, (x(), weights()))
    with pytest.raises(AccelerateError, match=r"_ops\.4"):
        fastnas.accelerate(ours, strict=True)
    assert not any("_fastnas" in vars(m) for m in ours.modules())


@pytest.mark.parametrize(("make", "reason"), LEFT_OF_STRIDE_2.values(), ids=LEFT_OF_STRIDE_2.keys())
def test_look_alikes_of_stride_2_stay_and_say_why(make: Callable[[], nn.Module], reason: str) -> None:
    theirs, ours = pair(Spoilt(make(), 2))
    report = fastnas.accelerate(ours)
    assert any(reason in (e.reason or "") for e in report.left), str(report)
    assert [e.candidates for e in report.fused] == [7]
    assert_same(ours, theirs, (x(), weights()))


def test_an_in_place_relu_on_the_edges_input_is_left() -> None:
    """What other candidates read depends on their order then: the candidate stays, or the whole edge."""
    module = stock.MixedOp(C, 1)
    module._ops[0] = chain(relu=nn.ReLU(inplace=True))
    theirs, ours = pair(module)
    report = fastnas.accelerate(ours)
    assert any("in place" in (e.reason or "") for e in report.left), str(report)
    assert_same(_Cloning(ours), _Cloning(theirs), (x(), weights()))


class _Cloning(nn.Module):
    """Gives a module a copy of its input, so that it may change it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out: Tensor = self.module(x.clone(), weights)
        return out


def test_odd_sizes_fail_where_they_did() -> None:
    theirs, ours = pair(stock.MixedOp(C, 2))
    fastnas.accelerate(ours, strict=True)
    odd = (x(size=7), weights())
    for module in (theirs, ours):
        with pytest.raises(RuntimeError, match=r"[Ss]izes"):
            module(*odd)


def test_a_change_in_place_before_the_result_is_used_is_an_error() -> None:
    class Changing(stock.MixedOp):
        changes = False

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            out = [op(x) for op in self._ops]
            if self.changes:
                x.mul_(2)
            return sum(w * o for w, o in zip(weights, out, strict=True))

    module = Changing(C, 1)
    assert fastnas.accelerate(module).fused
    module.changes = True
    with pytest.raises(RuntimeError, match="changed in place"):
        module(torch.randn(2, C, 8, 8), torch.rand(8))
