"""From promised values to operators: which values one operator computes, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn

from fastnas._C import Call
from fastnas.swap.build import Builder
from fastnas.swap.lazy import Run
from fastnas.swap.promise import Value, settled


def evaluate(run: Run, values: Sequence[Value]) -> Tensor | list[Tensor]:
    """The results of `values`, none of them computed before, by one operator as a concatenation, or each by itself."""
    met = run.met(values)
    if met.plan is not None:
        out = met.plan.compute(run)
        for number in met.plan.calls:
            run.calls[number].done = True
        return out
    states = _states(values)
    if earlier := run.before(_calls(states)):
        run.tensors([run.value(earlier[0])])
        return evaluate(run, values)
    if len({v.shape[2:] for v in values}) > 1:  # they cannot be concatenated
        return [run.tensors([v])[0] for v in values]
    run.add_states([state.number for state in states])
    calls = _calls(states)
    again = [call for call in calls if call.done]
    known = len(run.inputs)
    plan = Builder(run, states, values).plan
    if plan is None:
        run.home.in_order = True
        return _one_by_one(run, calls, values)
    _remember(run, states, values, again)
    with _untracked(again):
        out = plan.compute(run)
    for call in calls:
        call.done = True
    if not again and len(run.inputs) == known:
        met.plan = plan
    return out


def _states(values: Sequence[Value]) -> list[Value]:
    """The values and all that lead to them and are not computed, sources first."""
    found: dict[int, Value] = {}
    stack = [(v, False) for v in reversed(values)]
    while stack:
        value, visited = stack.pop()
        if id(value) in found or value.tensor is not None:
            continue
        if visited:
            found[id(value)] = value
            continue
        stack.append((value, True))
        sources = {id(s): s for term in value.terms if type(s := settled(term.source)) is Value}
        stack += [(source, False) for source in reversed(sources.values())]
    return list(found.values())


def _calls(states: Sequence[Value]) -> list[Call]:
    """Each once."""
    return list({id(t.what): t.what for state in states for t in state.terms if type(t.what) is Call}.values())


def _one_by_one(run: Run, calls: Sequence[Call], values: Sequence[Value]) -> list[Tensor]:
    """Candidate after candidate as the code called them, since weights are used twice; sums of their results."""
    for call in sorted(calls, key=lambda call: call.number):
        if type(call.source) is Value:
            _sum(run, call.source)
        run.tensors([run.value(call)])
    return [_sum(run, value) for value in values]


def _sum(run: Run, value: Value) -> Tensor:
    """A value, computed from computed candidates."""
    if value.tensor is None:
        total: Tensor | None = None
        for weights, what in value.terms:
            source = run.value(what) if type(what) is Call else what
            part = _sum(run, source) if type(source) is Value else cast(Tensor, source)
            for weight in weights:
                part = weight * part
            total = part if total is None else total + part
        assert total is not None
        value.tensor = total.to(value.dtype)
    return value.tensor


def _remember(run: Run, states: Sequence[Value], values: Sequence[Value], again: Sequence[Call]) -> None:
    """Has what is computed a second time here computed by itself from the next call of the region on."""
    if not again:
        return
    for state in states:
        calls = _calls([state])
        if calls and all(call.done for call in calls):
            if all(state is not v for v in values):
                run.home.alone.add(state.number)
            again = [call for call in again if call not in calls]
    run.home.alone.update(run.value(call).number for call in again)


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
