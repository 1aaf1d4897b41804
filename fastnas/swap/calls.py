"""With what a region is called: seen in a run of the model, or guessed from its signature and its candidates."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from fastnas.swap.recipes import Recipe, RefusedError, brief
from fastnas.swap.trace import borrowed_buffers, generators

_BATCH, _SIZE = 2, 8  # of guessed inputs; the size halves twice
_GUESSED = 5  # arguments at most, two tensors and three weights: with each more there are three times as many ways


@dataclass
class Arguments:
    """Of a call; tensors are detached."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Leaves buffers and the state of random generators as they were."""
    with generators(), borrowed_buffers(module):
        yield


@dataclass
class Seen:
    """What is known of the modules of a model from one run of it.

    Attributes:
        called: those whose `forward` ran.
        arguments: of regions, of their first calls.
        written: regions whose results were changed in place after they had returned them.
    """

    called: set[nn.Module] = field(default_factory=set)
    arguments: dict[nn.Module, Arguments] = field(default_factory=dict)
    written: set[nn.Module] = field(default_factory=set)


def seen(model: nn.Module, regions: Iterable[nn.Module], candidates: Iterable[nn.Module], example_inputs: Any) -> Seen:
    """What `model` does with these modules when it runs on `example_inputs`.

    Raises:
        RefusedError: the model raises an error.
    """
    found = Seen()
    results: list[tuple[nn.Module, Tensor, int]] = []

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        found.called.add(module)
        if module not in found.arguments:
            found.arguments[module] = Arguments(*tree_map(_detached, (args, kwargs)))

    def note(module: nn.Module, _: Any, result: Any) -> None:
        results.extend((module, t, t._version) for t in tensors(result))

    regions = list(regions)
    handles = [region.register_forward_pre_hook(keep, with_kwargs=True) for region in regions]
    handles += [region.register_forward_hook(note) for region in regions]
    handles += [candidate.register_forward_pre_hook(lambda m, _: found.called.add(m)) for candidate in candidates]
    try:
        with torch.no_grad(), untouched(model):
            model(*as_arguments(example_inputs))
    except Exception as error:
        raise RefusedError(f"the model does not run on example_inputs: {brief(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    found.written = {module for module, t, version in results if t._version != version}
    return found


def as_arguments(example_inputs: Any) -> tuple[Any, ...]:
    """A model's positional arguments: a tuple or list as it is, anything else as the only one."""
    return tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)


def guess(region: nn.Module, recipes: dict[nn.Module, Recipe], edges: int) -> Arguments:
    """Arguments on which a region runs.

    Args:
        recipes: of all candidates inside, in order.
        edges: how many modules inside are mixed edges; 0 if it is one itself, or mixes their candidates itself.

    Raises:
        RefusedError: nothing that was tried runs.
    """
    parameters = inspect.signature(region.forward).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) > _GUESSED:
        raise RefusedError(f"how it is called with {len(needed)} arguments is not guessed; give example_inputs")
    weight = next((t for t in region.parameters() if t.is_floating_point()), None)
    like = {} if weight is None else {"dtype": weight.dtype, "device": weight.device}
    for given in _attempts(region, recipes, edges, len(needed), like):
        try:
            with torch.no_grad(), untouched(region):
                region(*given)
        except Exception:  # other people's code raises what it likes; the next attempt may fit
            continue
        return Arguments(given, {})
    raise RefusedError("how it is called could not be guessed; give example_inputs")


def _attempts(
    region: nn.Module, recipes: dict[nn.Module, Recipe], edges: int, needed: int, like: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Tensors first, then weights: one for an edge of one input, two for a cell."""
    direct = [recipes[m] for m in region.children() if m in recipes]
    widths = [r.channels[0] for r in direct if r.channels]
    inside = [r.channels[0] for r in recipes.values() if r.channels] or [_SIZE]
    sets = [
        m
        for m in region.modules()
        if isinstance(m, nn.ModuleList | nn.ModuleDict) and any(c in recipes for c in m.children())
    ]
    candidates = len(sets[0]) if sets else len(direct)
    rows = edges or (len(sets) if len(sets) > 1 else 0)
    # The first input of a cell after a reduction is twice as large: its preprocessing halves it.
    first = 2 if [r.stride for r in direct[:2]] == [2, 1] else 1
    shapes = [(t, m, s) for t in ((2, 1) if edges else (1, 2)) for m in (1, 2, 4, 8) for s in (first, 3 - first)]
    for tensors, multiple, scale in shapes:
        if tensors > needed or (tensors == 1 and scale == 2):
            continue
        channels = widths[:tensors] if rows and len(widths) >= tensors else [inside[0]] * tensors
        sizes = [_SIZE * scale, _SIZE][-tensors:]
        x = [torch.randn(_BATCH, c * multiple, s, s, **like) for c, s in zip(channels, sizes, strict=True)]
        for weights in product(_weights(rows, candidates, like), repeat=needed - tensors):
            yield (*x, *weights)


def _weights(rows: int, candidates: int, like: dict[str, Any]) -> list[Any]:
    rand = partial(torch.rand, **like)
    if not rows:
        return [rand(candidates), list(rand(candidates)), rand(())]
    matrix = rand(rows, candidates)
    ends = [n * (n + 3) // 2 for n in range(1, rows)]  # of nodes with 2, 3, … edges
    by_node = [[rand(n + 2, candidates) for n in range(ends.index(rows) + 1)]] if rows in ends else []
    return [matrix, list(matrix), rand(rows), *by_node]


def tensors(tree: Any) -> list[Tensor]:
    """Those in arguments or in a result, in order."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def writable(leaf: Any) -> Any:
    """A copy, so that code may work in place on what a leaf of autograd's graph holds."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf


def _detached(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
