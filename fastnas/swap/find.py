"""Finds the candidates in a model, and the regions whose code combines them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fastnas.ops import Edge, mixed_cell
from fastnas.ops.spec import Norm, Spec
from fastnas.swap.alike import fingerprint
from fastnas.swap.modules import is_swapped, why_not
from fastnas.swap.recipes import Recipe, RefusedError
from fastnas.swap.recognise import recognise
from fastnas.swap.trace import borrowed_buffers, is_leaf, training
from fastnas.threads import using_threads

_LEAVES = 8  # convolutions and batch norms of the largest module that may be a candidate
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass
class Found:
    """What a model holds.

    Attributes:
        names: of all modules.
        parents: of all modules but the model; of one that has several, the first.
        recipes: of the candidates.
        refused: reasons of those that look like candidates.
        regions: modules whose code combines candidates, outer ones first, each with the region around it.
        kinds: recipes, or reasons, by fingerprint.
    """

    names: dict[nn.Module, str] = field(default_factory=dict)
    parents: dict[nn.Module, nn.Module] = field(default_factory=dict)
    recipes: dict[nn.Module, Recipe] = field(default_factory=dict)
    refused: dict[nn.Module, str] = field(default_factory=dict)
    regions: dict[nn.Module, nn.Module | None] = field(default_factory=dict)
    kinds: dict[Any, Recipe | str] = field(default_factory=dict)

    def around(self, module: nn.Module) -> Iterator[nn.Module]:
        """The modules around one that have code of their own, nearest first."""
        owner = _owner(module, self.parents)
        while owner is not None:
            yield owner
            owner = _owner(owner, self.parents)

    def nest(self, regions: Iterable[nn.Module]) -> None:
        """Makes these the regions."""
        chosen = set(regions)
        self.regions = {
            m: next((owner for owner in self.around(m) if owner in chosen), None) for m in self.names if m in chosen
        }

    def lift(self, called: Collection[nn.Module]) -> None:
        """Has the modules around work as regions where those inside have no call of their own.

        Args:
            called: the modules whose `forward` ran. The network may use others' methods instead.
        """
        used = {owner for m in self.recipes if m in called for owner in self.around(m)}
        self.nest(
            next((m for m in (region, *self.around(region)) if m in called), region) if region in used else region
            for region in self.regions
        )


@using_threads(1)  # tiny images: more would only wait for each other
def find(model: nn.Module) -> Found:
    """Looks through a model."""
    found = Found({m: name for name, m in model.named_modules()})
    parents = found.parents
    _walk(model, found, parents)
    found.recipes = _without_other_pools(found)
    found.refused = {m: reason for m, reason in found.refused.items() if _resembles(m, found, parents)}
    regions = {_owner(m, parents) for m in found.recipes}
    edges = [r for r in regions if r is not None and _mixes(r, found)]
    regions |= {owner for r in edges if (owner := _owner(r, parents)) is not None and owner is not model}
    found.nest(r for r in regions if r is not None)
    return found


def _without_other_pools(found: Found) -> dict[nn.Module, Recipe]:
    """The candidates; a pool without batch norm is one beside others, unless it is a part of a module that is none."""
    parents = found.parents
    mixing = {_owner(m, parents) for m, recipe in found.recipes.items() if not recipe.bare_pool}
    return {
        m: recipe
        for m, recipe in found.recipes.items()
        if not recipe.bare_pool or (_owner(m, parents) in mixing and parents.get(m) not in found.refused)
    }


def _walk(module: nn.Module, found: Found, parents: dict[nn.Module, nn.Module]) -> None:
    if _worth_a_try(module):
        recipe = _recipe(module, found)
        if isinstance(recipe, Recipe):
            found.recipes[module] = recipe
            return
        found.refused[module] = recipe
    for child in module.children():
        if child not in parents:
            parents[child] = module
            _walk(child, found, parents)


def _recipe(module: nn.Module, found: Found) -> Recipe | str:
    """How the operator computes a module, or why it does not; of modules that are alike, one is tried."""
    kind = fingerprint(module)
    if kind not in found.kinds:
        try:
            if reason := why_not(module):
                raise RefusedError(reason)
            found.kinds[kind] = _with_odd(module, recognise(module))
        except RefusedError as error:
            found.kinds[kind] = str(error)
    known = found.kinds[kind]
    return known.of(module) if isinstance(known, Recipe) else known


def _worth_a_try(module: nn.Module) -> bool:
    if isinstance(module, _CONTAINERS) or is_leaf(module) or is_swapped(module):
        return False
    leaves = sum(map(is_leaf, module.modules()))
    built_in = type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, nn.Sequential)
    return leaves <= _LEAVES and (not built_in or isinstance(module, nn.Identity | nn.MaxPool2d | nn.AvgPool2d))


def _with_odd(module: nn.Module, recipe: Recipe) -> Recipe:
    """Notes whether odd sizes give what the operator gives: code that halves a resolution differs in this."""
    if recipe.stride == 1 or recipe.name not in ("factorized_reduce", "none"):
        return recipe
    before, after = recipe.channels or (2, 2)
    weight = next((leaf.weight for leaf in recipe.leaves if isinstance(leaf, nn.Conv2d)), torch.empty(()))
    x = torch.randn(2, before, 7, 9, dtype=weight.dtype, device=weight.device)
    with torch.no_grad(), borrowed_buffers(module), training(module, True):
        try:
            theirs = module(x)
        except Exception:  # most public code fails on odd sizes
            recipe.odd = False
            return recipe
        recipe.odd = isinstance(theirs, Tensor) and theirs.shape == recipe.shape(x.shape)
        if recipe.odd and recipe.leaves:
            norm = recipe.leaves[-1]
            assert isinstance(norm, nn.BatchNorm2d)
            spec = Spec((before, after), 1, (Edge(0, 1, 2, (recipe.name,)),), (1,), (Norm(norm.eps, norm.affine),))
            ours, _ = mixed_cell(spec, [x], x.new_empty(0), [p for leaf in recipe.leaves for p in leaf.parameters()])
            recipe.odd = torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    return recipe


def _resembles(module: nn.Module, found: Found, parents: dict[nn.Module, nn.Module]) -> bool:
    """Whether a module that is not a candidate could be expected to be one."""
    if any(m in found.recipes for m in module.modules()):
        return False
    inside = parents.get(module)
    while inside is not None:  # the outermost of several is enough
        if inside in found.refused and not any(m in found.recipes for m in inside.modules()):
            return False
        inside = parents.get(inside)
    parent = parents.get(module)
    beside = parent is not None and any(child in found.recipes for child in parent.children())
    depthwise = any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in module.modules())
    return depthwise or (beside and parent is not None and isinstance(parent, _CONTAINERS))


def _owner(module: nn.Module, parents: dict[nn.Module, nn.Module]) -> nn.Module | None:
    """The nearest module around that has code of its own; else the outermost sequence around."""
    last, owner = None, parents.get(module)
    while owner is not None:
        plain_sequence = type(owner).forward is nn.Sequential.forward
        if not isinstance(owner, _CONTAINERS) and not plain_sequence:
            return owner
        last = owner if plain_sequence else last
        owner = parents.get(owner)
    return last


def _mixes(region: nn.Module, found: Found) -> bool:
    """Whether it is a mixed edge, rather than something around edges that has preprocessing of its own."""
    inside = (m for child in region.children() for m in (child, *child.children()))
    return sum(m in found.recipes and not found.recipes[m].preprocesses for m in inside) > 1
