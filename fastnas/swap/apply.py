"""`fastnas.accelerate`: other people's supernets on the fused operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from fastnas.errors import UserError
from fastnas.ops.backends import NAMES
from fastnas.ops.functional import MEMORY_MODES
from fastnas.swap import calls
from fastnas.swap.alike import fingerprint, signature
from fastnas.swap.cost import cost, costs, quick_collections, slower
from fastnas.swap.find import Found, find
from fastnas.swap.lazy import as_written
from fastnas.swap.modules import Home, restore_module, swap, why_not
from fastnas.swap.recipes import RefusedError, brief
from fastnas.swap.report import Cost, Entry, Report
from fastnas.swap.trace import generators
from fastnas.swap.verify import verify
from fastnas.threads import using_threads

Module = TypeVar("Module", bound=nn.Module)
Result = TypeVar("Result", float, calls.Arguments)
Measured = TypeVar("Measured")
_Compared = tuple[Cost | None, Cost, str | None]  # before, after, and how much slower that is


class AccelerateError(UserError):
    """A module cannot be accelerated, and `strict=True`; the message says which one and why."""


def accelerate(
    model: nn.Module,
    memory: str = "fast",
    example_inputs: Any = None,
    strict: bool = False,
    backend: str = "auto",
) -> Report:
    """Has `model` compute its mixed edges, cells and separable convolutions with fused operators, in place.

    Candidate operations are recognised by what they compute, whatever their classes are called; how they are combined
    is read from the model's own code while it runs (docs/accelerate.md). Of the modules that are to change, one of each
    kind is first run both ways on random values, in training and in eval mode, and its results, gradients and buffers
    are compared; what is not recognised, or differs, stays as it was. Parameters, buffers, their names and the state
    dict do not change, nor do gradients, training flags and random generators.

    Args:
        model: any module; call it before or after the optimiser is made.
        memory: "fast" or "lean", see `fastnas.ops.mixed_cell`.
        example_inputs: what the model is called with, a tensor or a tuple of positional arguments. With it, modules
            are verified as the model calls them, and time and memory are measured: a module that would become slower
            stays as it was, unless `strict` or memory="lean". As it was written it may need more memory than there is.
        strict: raise an error if a module that looks like a candidate, or combines some, stays as it was.
        backend: "auto", "cuda", "triton", "cpu" or "reference".

    Returns:
        What was done, module by module, and why not elsewhere; print it.

    Raises:
        AccelerateError: with `strict`, the first reason; the model is as it was.
        UserError: the model's forward or backward fails on `example_inputs`, or, on the operator too, lacks memory.
        ValueError: an unknown memory mode or backend.
    """
    if memory not in MEMORY_MODES:
        raise ValueError(f"memory must be one of {', '.join(MEMORY_MODES)}, got {memory!r}")
    if backend not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}, got {backend!r}")
    restore(model)
    with generators(), quick_collections():
        return _accelerate(model, memory, example_inputs, strict, backend)


def restore(model: Module) -> Module:
    """Undoes `accelerate`: all modules compute as they were written. Returns the model."""
    for module in model.modules():
        restore_module(module)
    return model


def _accelerate(model: nn.Module, memory: str, example_inputs: Any, strict: bool, backend: str) -> Report:
    found = find(model)
    report = Report([_entry(found, m, reason) for m, reason in found.refused.items()])
    if not found.recipes and not report.entries:
        report.entries.append(Entry("", type(model).__name__, reason="it holds no candidate operation"))
    if found.recipes and not found.regions:
        report.entries.append(Entry("", type(model).__name__, reason="it is a single candidate operation by itself"))
    try:
        seen = None if example_inputs is None else _seen(model, found, example_inputs)
        whole = calls.Arguments(calls.as_arguments(example_inputs), {})
        _Fusing(model, whole, found, seen, memory, backend, strict, report).run()
    except BaseException:
        restore(model)
        raise
    return report


def _seen(model: nn.Module, found: Found, example_inputs: Any) -> calls.Seen:
    try:
        users = {m for region in found.regions for m in (region, *found.around(region))}
        seen = calls.seen(model, users, found.recipes, example_inputs)
    except RefusedError as error:
        raise UserError(str(error)) from error
    found.lift(seen.called)
    return seen


def _entry(found: Found, module: nn.Module, reason: str | None = None) -> Entry:
    return Entry(found.names[module], type(module).__name__, reason=reason)


def _once(known: dict[Any, Result | str], kind: Any, find: Callable[[], Result]) -> Result:
    """What `find` returns, or refuses, for the first of a kind."""
    if kind not in known:
        try:
            known[kind] = find()
        except RefusedError as error:
            known[kind] = str(error)
    found = known[kind]
    if isinstance(found, str):
        raise RefusedError(found)
    return found


def _as_written(measure: Callable[[], Measured]) -> Measured | None:
    """What `measure` finds of modules as they were written; None if memory does not suffice for them."""
    try:
        with as_written():
            return measure()
    except torch.OutOfMemoryError:
        return None


class _Fusing:
    """Makes regions of modules, those around others first; within one that fails its parts are tried by themselves."""

    def __init__(
        self,
        model: nn.Module,
        whole: calls.Arguments,
        found: Found,
        seen: calls.Seen | None,
        memory: str,
        backend: str,
        strict: bool,
        report: Report,
    ) -> None:
        self._model, self._whole = model, whole
        self._found, self._seen, self._report = found, seen, report
        self._how = (memory, backend)
        self._strict, self._keeps_slower = strict, strict or memory == "lean"
        self._inside_candidates = {m for c in found.recipes for m in c.modules()}
        around = set(found.names) - self._inside_candidates
        self._works_in_place = any(getattr(m, "inplace", False) is True for m in around)
        self._guessed: dict[Any, calls.Arguments | str] = {}
        self._kinds: dict[nn.Module, Any] = {}
        self._verified: dict[Any, float | str] = {}
        self._before: dict[nn.Module, Cost] | None = None
        self._slower: dict[nn.Module, Entry] = {}
        self._measured: dict[Any, _Compared] = {}

    def run(self) -> None:
        """Does it, and reports; where regions have become slower, again without them."""
        entries = self._fuse()
        left = [e for e in (*self._report.entries, *entries.values()) if e.reason is not None]
        if self._strict and left:
            raise AccelerateError(f"{left[0].name or 'the model'} ({left[0].kind}) stays as it was: {left[0].reason}")
        while self._measure(entries):
            entries = self._fuse()
        self._report.entries.extend(entries.values())

    @using_threads(1)  # tiny images: more would only wait for each other, beside another process for minutes
    def _fuse(self) -> dict[nn.Module, Entry]:
        """Makes regions of all modules that can be; what is to be reported of them."""
        for module in (*self._found.recipes, *self._found.regions):
            restore_module(module)
        for candidate, recipe in self._found.recipes.items():
            swap(candidate, recipe)
        fused: set[nn.Module] = set()
        entries: dict[nn.Module, Entry] = {}
        for region, around in self._found.regions.items():
            part = around is not None and around in fused
            entry = self._slower.get(region) or self._try(region, part)
            if entry.reason is None:
                fused.add(region)
            if not part or entry.reason is not None:  # else it is a part of what is reported
                entries[region] = entry
        used = {m for region in fused for m in region.modules()}
        for candidate in self._found.recipes.keys() - used:
            restore_module(candidate)  # code that is left may look at its class
        return entries

    def _try(self, region: nn.Module, part: bool) -> Entry:
        """Makes a region of a module, or says why it stays as it was. A part of one has been verified with it."""
        entry = _entry(self._found, region)
        try:
            entry.error = self._swap(region, part)
        except RefusedError as error:
            restore_module(region)
            entry.reason = str(error)
        else:
            entry.candidates = sum(m in self._found.recipes for m in region.modules())
        return entry

    def _swap(self, region: nn.Module, part: bool) -> float | None:
        """Makes a region of a module; the largest error found, if that is not a part of one."""
        if reason := why_not(region):
            raise RefusedError(reason)
        if all(self._found.recipes[m].cheap for m in region.modules() if m in self._found.recipes):
            if part:
                return None
            raise RefusedError("what the operator has of its candidates costs too little to gain from it")
        inner = [m for m in region.modules() if m is not region and m not in self._inside_candidates]
        arguments = None if part else self._arguments(region)
        swap(region, Home(inner, *self._how, self._copies(region)))
        return None if arguments is None else self._error(region, arguments)

    def _error(self, region: nn.Module, arguments: calls.Arguments) -> float:
        """The largest error; of regions that are built and called alike, one is run."""
        kind = self._kind(region, arguments)
        return _once(self._verified, kind, lambda: verify(region, arguments))

    def _measure(self, entries: dict[nn.Module, Entry]) -> bool:
        """Costs, before and after; whether regions have become slower, which must not be fused then."""
        fused = {region: entry for region, entry in entries.items() if entry.reason is None}
        self._report.after = None
        if self._seen is None or not fused:
            return False
        if self._before is None:
            regions = self._found.regions
            before = _as_written(lambda: costs(self._model, self._whole, regions, with_peak=True))
            self._report.before, self._before = before or (None, {})
        try:
            self._report.after, after = costs(self._model, self._whole, fused, with_peak=True)
        except torch.OutOfMemoryError as error:
            raise UserError(f"example_inputs need more memory than there is: {brief(error)}") from error
        for region, entry in fused.items():
            entry.before, entry.after, times = self._costs(region, self._before.get(region), after.get(region))
            if times is not None:
                entry.candidates, entry.reason = 0, f"it would be slower: {times}"
                self._slower[region] = entry
        return any(region in self._slower for region in fused)

    def _costs(self, region: nn.Module, before: Cost | None, after: Cost | None) -> _Compared:
        """Of regions that are built and called alike, one is measured: by itself if steps of the model do not tell."""
        arguments = self._arguments(region)
        kind = self._kind(region, arguments)
        if kind not in self._measured:
            if before is None or after is None:
                before = _as_written(lambda: cost(region, arguments))
                after = cost(region, arguments)
            suspected = before is not None and after.seconds > before.seconds and not self._keeps_slower
            self._measured[kind] = before, after, slower(region, arguments) if suspected else None
        return self._measured[kind]

    def _kind(self, region: nn.Module, arguments: calls.Arguments) -> Any:
        """Equal for regions that are built and called alike."""
        return self._fingerprint(region), signature((arguments.args, arguments.kwargs))

    def _fingerprint(self, region: nn.Module) -> Any:
        """Equal for regions that are built alike."""
        if region not in self._kinds:
            self._kinds[region] = fingerprint(region)
        return self._kinds[region]

    def _arguments(self, region: nn.Module) -> calls.Arguments:
        """How a region is called."""
        if self._seen is None:
            return self._guess(region)
        if region not in self._seen.arguments:
            raise RefusedError("the model does not call it with example_inputs")
        return self._seen.arguments[region]

    def _guess(self, region: nn.Module) -> calls.Arguments:
        """Of regions that are built alike, one is tried."""

        def guess() -> calls.Arguments:
            inside = {m: self._found.recipes[m] for m in region.modules() if m in self._found.recipes}
            edges = sum(around is region for around in self._found.regions.values())
            return calls.guess(region, inside, edges)

        return _once(self._guessed, self._fingerprint(region), guess)

    def _copies(self, region: nn.Module) -> bool:
        """Whether the code around a region works in place on its results, or, if that has not been seen, may."""
        return self._works_in_place if self._seen is None else region in self._seen.written
