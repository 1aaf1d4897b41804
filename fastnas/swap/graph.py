"""From values to the operator: the cell that computes them, its parameters and its α."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastnas.nn.fused import FusedCell
from fastnas.ops import Edge
from fastnas.swap.lazy import Call, Run, Term, Value, Weight


def evaluate(run: Run, values: Sequence[Value]) -> list[Tensor]:
    """The results of `values`, none of them computed before, each by itself or all in one operator."""
    states = _states(values)
    uses = Counter(id(leaf) for call in _calls(states) for leaf in call.recipe.leaves)
    if any(count > 1 for count in uses.values()):
        return _in_steps(run, states, values)
    if len({v.shape[2:] for v in values}) > 1:  # they cannot be concatenated
        return [run.tensors([v])[0] for v in values]
    for state in states:
        state.state = True
    again = [call for call in _calls(states) if call.done]
    _remember(run, states, values, again)
    with _untracked(again):
        out = _Builder(run, states, values).run()
    for call in _calls(states):
        call.done = True
    return [out] if len(values) == 1 else list(torch.split(out, [v.shape[1] for v in values], 1))


def _states(values: Sequence[Value]) -> list[Value]:
    """The values and all that lead to them and are not computed, sources first."""
    found: dict[int, Value] = {}
    stack = [(v, False) for v in reversed(values)]
    while stack:
        value, visited = stack.pop()
        if id(value) in found:
            continue
        if visited:
            found[id(value)] = value
            continue
        stack.append((value, True))
        for term in value.terms:
            source = term.what.source if type(term.what) is Call else term.what
            if type(source) is Value and source.tensor is None:
                stack.append((source, False))
    return list(found.values())


def _calls(states: Sequence[Value]) -> list[Call]:
    return [term.what for state in states for term in state.terms if type(term.what) is Call]


def _in_steps(run: Run, states: Sequence[Value], values: Sequence[Value]) -> list[Tensor]:
    """State by state, since weights are used twice; the terms of a sum that uses some twice one by one."""
    for state in states:
        if state.tensor is not None:
            continue
        uses = Counter(id(leaf) for call in _calls([state]) for leaf in call.recipe.leaves)
        if all(count == 1 for count in uses.values()):
            run.tensors([state])
            continue
        parts = [_plain(run, term) for term in state.terms]
        state.tensor = sum(parts[1:], parts[0])
    return [v.tensor for v in values]  # type: ignore[misc]


def _plain(run: Run, term: Term) -> Tensor:
    what = term.what
    if type(what) is Call:
        assert what.value is not None
        what = what.value
    tensor = run.tensors([what])[0] if type(what) is Value else what
    assert isinstance(tensor, Tensor)
    return tensor if term.weight is None else term.weight * tensor


def _remember(run: Run, states: Sequence[Value], values: Sequence[Value], again: Sequence[Call]) -> None:
    """Has what is computed a second time here computed by itself from the next call of the region on."""
    for state in states:
        calls = _calls([state])
        if calls and all(call.done for call in calls):
            if all(state is not v for v in values):
                run.home.alone.add(state.number)
            again = [call for call in again if call not in calls]
    run.home.alone.update(call.value.number for call in again if call.value is not None)


@contextmanager
def _untracked(calls: Sequence[Call]) -> Iterator[None]:
    """Keeps candidates that are computed a second time from updating their running statistics again."""
    norms = [leaf for call in calls for leaf in call.recipe.leaves if isinstance(leaf, nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.training and norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class _Builder:
    """Lists edges, modules and weights of a cell in the operator's order."""

    def __init__(self, run: Run, states: Sequence[Value], values: Sequence[Value]) -> None:
        self._home = run.home
        self._inputs: dict[int, Tensor] = {}
        for state in states:
            for term in state.terms:
                t = _input(term)
                if t is not None:
                    self._inputs.setdefault(id(t), t)
        self._places = {key: i for i, key in enumerate(self._inputs)}
        self._channels = [t.shape[1] for t in self._inputs.values()]
        self._edges: list[Edge] = []
        self._calls: list[Call | None] = []  # of every candidate
        self._weights: list[Weight | None] = []
        for state in states:
            self._add(state)
        self._outputs = [self._places[id(v)] for v in values]

    def run(self) -> Tensor:
        """The concatenated results."""
        recipes = tuple(None if call is None else call.recipe for call in self._calls)
        key = (tuple(self._edges), tuple(self._channels), tuple(self._outputs), tuple(map(id, recipes)))
        if key not in self._home.cells:
            modules = [nn.ModuleList([] if recipe is None else recipe.leaves) for recipe in recipes]
            cell = FusedCell(
                self._channels,
                len(self._inputs),
                self._edges,
                self._outputs,
                modules,
                self._home.memory,
                self._home.backend,
            )
            self._home.cells[key] = cell, recipes  # the recipes, too: they keep their numbers while they live
        inputs = list(self._inputs.values())
        out: Tensor = self._home.cells[key][0](inputs, _alpha(self._weights, inputs[0]))
        return out

    def _source(self, what: Tensor | Value) -> int:
        tensor = what.tensor if type(what) is Value else what
        return self._places[id(what if tensor is None else tensor)]

    def _new_state(self, channels: int) -> int:
        self._channels.append(channels)
        return len(self._channels) - 1

    def _add(self, state: Value) -> None:
        """The edges that lead to a state, those that weigh candidates grouped by source and stride."""
        groups: dict[tuple[int, int], list[tuple[str, Call | None, Weight | None]]] = {}
        plain: list[int] = []
        terms = [(self._before(term, len(state.terms)), term) for term in state.terms]
        target = self._places[id(state)] = self._new_state(state.shape[1])
        for source, term in terms:
            call = term.what if type(term.what) is Call else None
            if call is not None and not call.recipe.preprocesses:
                entry = (call.recipe.name, call, term.weight)
                groups.setdefault((source, call.recipe.stride), []).append(entry)
            elif call is not None and term.weight is None and len(terms) == 1:
                self._edge(source, target, call.recipe.stride, [(call.recipe.name, call, None)])
            elif term.weight is None:
                plain.append(source)
            else:
                groups.setdefault((source, 1), []).append(("skip_connect", None, term.weight))
        for (source, stride), entries in groups.items():
            self._edge(source, target, stride, entries)
            self._weights += [weight for *_, weight in entries]
        for source in plain:
            self._edge(source, target, 1, [("identity", None, None)])

    def _before(self, term: Term, terms: int) -> int:
        """The state that a term reads; of a preprocessing candidate in a sum, the one that it leads to."""
        if type(term.what) is not Call:
            return self._source(term.what)  # type: ignore[arg-type]
        call, source = term.what, self._source(term.what.source)
        if not call.recipe.preprocesses or (term.weight is None and terms == 1):
            return source
        assert call.value is not None
        target = self._new_state(call.value.shape[1])
        self._edge(source, target, call.recipe.stride, [(call.recipe.name, call, None)])
        return target

    def _edge(
        self, source: int, target: int, stride: int, entries: Sequence[tuple[str, Call | None, Weight | None]]
    ) -> None:
        self._edges.append(Edge(source, target, stride, tuple(name for name, *_ in entries)))
        self._calls += [call for _, call, _ in entries]


def _input(term: Term) -> Tensor | None:
    what = term.what.source if type(term.what) is Call else term.what
    if type(what) is Value:
        return what.tensor
    assert isinstance(what, Tensor)
    return what


def _alpha(weights: Sequence[Weight | None], like: Tensor) -> Tensor:
    """(len(weights),), 1 where there is none."""
    if not weights:
        return like.new_empty(0)
    dtype = like.dtype
    scalars = [
        w.reshape(()).to(like.device, dtype) if isinstance(w, Tensor) else like.new_tensor(1.0 if w is None else w)
        for w in weights
    ]
    return torch.stack(scalars)
