"""Runs a region as it was written and on the operator, and compares all that it computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from fastnas.swap.calls import Arguments, tensors, writable
from fastnas.swap.modules import is_candidate, restore_module
from fastnas.swap.recipes import RefusedError, brief
from fastnas.swap.trace import borrowed_buffers, generators, training

_IMAGES = 2  # of a batch are enough
_SAMPLES = 5  # runs, at most, of code that draws the candidates which it calls
_SIDE = 8  # height and width of an image are not made smaller than this
# Largest error, relative to the largest value of the compared tensor. In float64 both err by about 1e-14, through
# several stages of normalisation some 100 times that.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}


def verify(region: nn.Module, arguments: Arguments) -> float:
    """The largest relative error of the region's results, gradients and buffers, in training and in eval mode.

    Both run on random values on copies of the region in float64, on two images of the arguments' size or a power of two
    smaller; in float32 if its own code does not run in float64.

    Raises:
        RefusedError: they differ, or one of them fails.
    """
    small = _shrunk(arguments)
    attempts = [(small, torch.float64), (arguments, torch.float64), (arguments, torch.float32)]
    if small is arguments:
        attempts = attempts[1:]
    failure: _OwnError | None = None
    for given, dtype in attempts:  # its own code may be made for one size, or for float32
        try:
            return _largest_error(region, given, dtype)
        except _OwnError as own:  # noqa: PERF203 # there are three at most
            failure = own
    raise RefusedError(f"its own code fails on random values: {failure}") from failure


def _shrunk(arguments: Arguments) -> Arguments:
    """Arguments with smaller images where all heights and widths can be divided; values do not matter.

    Odd sides, as networks for segmentation have them, are divided but for one pixel: 33 and 17 become 17 and 9.
    """
    leaves, tree = tree_flatten((arguments.args, arguments.kwargs))
    sides = {side for leaf in leaves if _is_image(leaf) for side in leaf.shape[2:]}
    over = min((side % 2 for side in sides), default=0)
    factor = 1
    while sides and min(sides) >= 2 * factor * _SIDE and not any((side - over) % (4 * 2 * factor) for side in sides):
        factor *= 2

    def smaller(leaf: Any) -> Any:
        if not _is_image(leaf):
            return leaf
        height, width = ((side - over) // factor + over for side in leaf.shape[2:])
        return leaf[:, :, :height, :width]

    return arguments if factor == 1 else Arguments(*tree_unflatten(map(smaller, leaves), tree))


def _is_image(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim == 4 and leaf.is_floating_point()


def _largest_error(region: nn.Module, arguments: Arguments, dtype: torch.dtype) -> float:
    """In training and in eval mode, and again while that calls candidates which have not been called."""
    ours = _copy(region, dtype)
    theirs = copy.deepcopy(ours)
    candidates = [b for a, b in zip(ours.modules(), theirs.modules(), strict=True) if is_candidate(a)]
    for m in theirs.modules():  # of their own classes, too: its code may compare them
        restore_module(m)
    called: set[nn.Module] = set()
    for candidate in candidates:
        candidate.register_forward_pre_hook(lambda m, _: called.add(m))
    worst = 0.0
    for seed in range(_SAMPLES):
        before = len(called)
        worst = max(worst, *(_compare(ours, theirs, arguments, mode, dtype, seed) for mode in (True, False)))
        if len(called) in (before, len(candidates)):
            break
    return worst


class _OwnError(Exception):
    """The region's own code raised an error."""


def _copy(region: nn.Module, dtype: torch.dtype) -> nn.Module:
    try:
        return copy.deepcopy(region).to(dtype).requires_grad_(True)
    except Exception as error:
        raise RefusedError(f"it cannot be copied: {brief(error)}") from error


def _compare(
    ours: nn.Module, theirs: nn.Module, arguments: Arguments, mode: bool, dtype: torch.dtype, seed: int
) -> float:
    with generators(2 * seed):
        given = tree_map(lambda leaf: _random(leaf, dtype), (arguments.args, arguments.kwargs))
    try:
        expected = _run(theirs, given, mode, seed)
    except Exception as error:
        raise _OwnError(brief(error)) from error
    try:
        actual = _run(ours, given, mode, seed)
    except Exception as error:
        asks = "fastnas.swap" in str(error)  # of a promise's class
        why = "its code asks of which class a candidate's result is" if asks else brief(error)
        raise RefusedError(f"it fails on the operator: {why}") from error
    when = "in training" if mode else "in eval mode"
    if len(actual) != len(expected):
        raise RefusedError(f"{when} it returns {len(actual)} tensors instead of {len(expected)}")
    worst = 0.0
    for (name, a), (_, b) in zip(actual, expected, strict=True):
        found = _error(a, b)
        if not found <= _TOLERANCE[dtype]:
            raise RefusedError(f"{when} its {name} differs from that of its own code by {found:.1g} (relative)")
        worst = max(worst, found)
    return worst


def _random(leaf: Any, dtype: torch.dtype) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if not leaf.is_floating_point():
        return leaf.clone()
    if leaf.ndim == 4:
        leaf = leaf[:_IMAGES]
        return torch.randn(leaf.shape, dtype=dtype, device=leaf.device).requires_grad_()
    return (torch.rand(leaf.shape, dtype=dtype, device=leaf.device) + 0.1).requires_grad_()


def _run(region: nn.Module, given: Any, mode: bool, seed: int) -> list[tuple[str, Tensor | None]]:
    """All that a call computes: results, gradients, and buffers afterwards."""
    with generators(2 * seed + 1), borrowed_buffers(region), training(region, mode), torch.enable_grad():
        args, kwargs = tree_map(writable, given)
        result = region(*args, **kwargs)
        results = tensors(result)
        loss = sum((torch.randn_like(t) * t).sum() for t in results if t.requires_grad)
        inputs = [t for t in tensors(given) if t.requires_grad]
        weights = dict(region.named_parameters())
        grads: Sequence[Tensor | None] = [None] * (len(inputs) + len(weights))
        if isinstance(loss, Tensor):
            grads = torch.autograd.grad(loss, [*inputs, *weights.values()], allow_unused=True)
        buffers = [(f"buffer {name}", t.clone()) for name, t in region.named_buffers()]
    names = [*(f"gradient of argument tensor {i}" for i in range(len(inputs))), *(f"gradient of {n}" for n in weights)]
    return [
        *((f"result {i}", t.detach()) for i, t in enumerate(results)),
        *zip(names, grads, strict=True),
        *buffers,
    ]


def _error(a: Tensor | None, b: Tensor | None) -> float:
    """Relative to the largest value of `b`; a gradient that does not exist counts as zeros."""
    if a is None or b is None:
        there = a if b is None else b
        return 0.0 if there is None or not there.any() else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return float("inf")
    if not a.numel() or torch.equal(a, b):
        return 0.0
    scale = max(float(b.abs().max()), 1e-2) if b.is_floating_point() else 1.0
    return float((a.double() - b.double()).abs().max()) / scale
