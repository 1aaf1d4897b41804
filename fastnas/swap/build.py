"""The operator that computes some values: its edges, the modules of each, its α."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor, nn

from fastnas._C import Call
from fastnas.nn.fused import FusedCell
from fastnas.ops import Edge
from fastnas.swap.lazy import Run
from fastnas.swap.promise import Value, settled
from fastnas.swap.weights import Alpha, Factors, places


class _Candidate(NamedTuple):
    """Of an edge: its name, its call, None for a state that is taken as it is, and what weighs it."""

    name: str
    call: Call | None
    factors: Factors


class _Group(NamedTuple):
    """What an edge computes, wherever it leads: the number of its source, its stride, its candidates."""

    source: int
    stride: int
    candidates: list[_Candidate]

    @property
    def identity(self) -> Any:
        """Alike for those that compute the same."""
        calls = [
            None if c.call is None else id(c.call if c.call.recipe.leaves else c.call.recipe) for c in self.candidates
        ]
        return self.source, self.stride, tuple(calls), tuple([c.factors for c in self.candidates])

    @property
    def shared(self) -> Any:
        """Alike for those whose parameters and entries of α are the same."""
        own = [(c.name, None if c.call is None else id(c.call.recipe), c.factors) for c in self.candidates]
        return self.stride, tuple(own)

    @property
    def owns(self) -> bool:
        """Whether any of its candidates has parameters or running statistics."""
        return any(c.call is not None and c.call.recipe.leaves for c in self.candidates)

    @property
    def repeats(self) -> bool:
        """Whether the region's code made any of its calls again."""
        return any(c.call is not None and c.call.repeats > 1 for c in self.candidates)


class Plan(NamedTuple):
    """How an operator computes some values of a run, and of every run that did the same before.

    Attributes:
        inputs: numbers of the tensors that it reads.
        states: numbers of all values in it.
        calls: numbers of the candidates' calls in it.
    """

    cell: FusedCell
    inputs: tuple[int, ...]
    alpha: Alpha
    states: tuple[int, ...]
    calls: tuple[int, ...]

    def compute(self, run: Run) -> Tensor:
        """The concatenated results."""
        run.add_states(self.states)
        inputs = [run.inputs[number] for number in self.inputs]
        out: Tensor = self.cell(inputs, self.alpha(run, inputs[0]))
        return out


class Builder:
    """Lists a cell's edges in the operator's order.

    Weighed candidates that read the same, with the same stride, make an edge. An edge that several states receive
    leads to a state of its own, which is added to each of them; one whose candidates and weights are those of an edge
    before it shares these.

    Attributes:
        plan: the operator; None if there cannot be one: weights that are used twice must be those of whole edges, in
            the order in which the region's code called them.
    """

    def __init__(self, run: Run, states: Sequence[Value], values: Sequence[Value]) -> None:
        self._run = run
        inputs = [t for state in states for term in state.terms if isinstance(t := settled(term.source), Tensor)]
        self._inputs = list({id(t): t for t in inputs}.values())
        self._places = {id(t): i for i, t in enumerate(self._inputs)}  # of inputs, values and calls
        self._channels = [t.shape[1] for t in self._inputs]
        self._edges: list[Edge] = []
        self._calls: list[Call | None] = []  # of every candidate
        self._weights: list[Factors] = []
        self._owners: dict[Any, int] = {}  # edges whose parameters others may share
        self._between: dict[Any, int] = {}  # states of edges that several states receive
        found = [_Members(run, state) for state in states]
        self._receivers = Counter(group.identity for members in found for group in members.groups if group.repeats)
        for state, members in zip(states, found, strict=True):
            self._add(state, members)
        self._outputs = [self._places[id(v)] for v in values]
        self.plan = self._planned(states)

    def _planned(self, states: Sequence[Value]) -> Plan | None:
        cell = self._found()
        if cell is None:
            return None
        inputs = tuple([~self._run.number(t) for t in self._inputs])
        alpha = Alpha(self._run, self._weights)
        calls = {t.what.number for state in states for t in state.terms if type(t.what) is Call}
        return Plan(cell, inputs, alpha, tuple([state.number for state in states]), tuple(calls))

    def _add(self, state: Value, members: _Members) -> None:
        """The edges that lead to a state, after the states that they read."""
        if members.direct is not None:
            self._prepare(members.direct)
            self._places[id(state)] = self._places[id(members.direct)]
            return
        for call in members.prepared:
            self._prepare(call)
        plain = [self._places[number] for number in members.plain]
        groups = []
        for group in members.groups:
            if group.repeats and self._receivers[group.identity] > 1:
                plain.append(self._received(group, state.shape[1]))
            else:
                groups.append(group)
        target = self._places[id(state)] = self._new_state(state.shape[1])
        for group in groups:
            self._mixed(group, target)
        for source in plain:
            self._edge(source, target, 1, [_Candidate("identity", None, ())])

    def _received(self, group: _Group, channels: int) -> int:
        """The state of an edge that several states receive."""
        if group.identity not in self._between:
            self._between[group.identity] = self._new_state(channels)
            self._mixed(group, self._between[group.identity])
        return self._between[group.identity]

    def _prepare(self, call: Call) -> None:
        """The state that a preprocessing candidate leads to."""
        if id(call) not in self._places:
            source = self._places[id(settled(call.source))]
            target = self._places[id(call)] = self._new_state(call.shape[1])
            shares = self._sharing((call.recipe.stride, id(call.recipe)))
            self._edge(source, target, call.recipe.stride, [_Candidate(call.recipe.name, call, ())], shares)

    def _mixed(self, group: _Group, target: int) -> None:
        shares = self._sharing(group.shared) if self._run.twice and group.owns else None
        if shares is None:
            self._weights += [candidate.factors for candidate in group.candidates]
        self._edge(self._places[group.source], target, group.stride, group.candidates, shares)

    def _edge(
        self, source: int, target: int, stride: int, candidates: Sequence[_Candidate], shares: int | None = None
    ) -> None:
        self._edges.append(Edge(source, target, stride, tuple([c.name for c in candidates]), shares))
        self._calls += [c.call for c in candidates]

    def _sharing(self, shared: Any) -> int | None:
        """The edge whose parameters and entries of α the next one takes; None for the first of its kind."""
        owner = self._owners.setdefault(shared, len(self._edges))
        return None if owner == len(self._edges) else owner

    def _new_state(self, channels: int) -> int:
        self._channels.append(channels)
        return len(self._channels) - 1

    def _found(self) -> FusedCell | None:
        """The operator, made where this graph is met for the first time; None if there cannot be one."""
        recipes = tuple([None if call is None else call.recipe for call in self._calls])
        repeats = tuple([1 if call is None else call.repeats for call in self._calls])
        graph = tuple(self._edges), tuple(self._channels), tuple(self._outputs)
        cells, number = self._run.home.cells, (graph, tuple(map(id, recipes)), repeats, self._in_order())
        if number not in cells:
            cell = None
            if number[-1] and self._each_weight_once():
                modules = [nn.ModuleList([] if recipe is None else recipe.leaves) for recipe in recipes]
                how = (self._run.home.memory, self._run.home.backend, repeats)
                cell = FusedCell(self._channels, len(self._inputs), self._edges, self._outputs, modules, *how)
            cells[number] = cell, recipes  # the recipes, too: they keep their numbers while they live
        found: FusedCell | None = cells[number][0]
        return found

    def _in_order(self) -> bool:
        """Whether calls of one candidate come in the order in which they were made, each once."""
        last: dict[int, int] = {}
        for call in self._calls:
            if call is not None and call.recipe.leaves:
                if last.get(id(call.recipe), -1) >= call.number:
                    return False
                last[id(call.recipe)] = call.number
        return True

    def _each_weight_once(self) -> bool:
        """Whether no weight is used twice, but by edges that share all of theirs; nor is an output listed twice."""
        calls = iter(self._calls)
        used: Counter[int] = Counter()
        for edge in self._edges:
            of_edge = list(islice(calls, len(edge.candidates)))
            if edge.shares is None:
                used.update(id(leaf) for call in of_edge if call is not None for leaf in call.recipe.leaves)
        return max(used.values(), default=1) == 1 and len(set(self._outputs)) == len(self._outputs)


class _Members:
    """The terms of a state.

    Attributes:
        direct: the preprocessing candidate whose result the state is.
        prepared: preprocessing candidates whose results are parts of it.
        plain: numbers of the sources that are added as they are.
        groups: candidates that are weighed, by source and stride.
    """

    def __init__(self, run: Run, state: Value) -> None:
        self.direct: Call | None = None
        self.prepared: list[Call] = []
        self.plain: list[int] = []
        groups: dict[tuple[int, int], _Group] = {}
        for term in state.terms:
            weights, what = term
            name, call, stride, source = "skip_connect", None, 1, id(settled(term.source))
            if type(what) is Call and what.recipe.preprocesses:
                if len(state.terms) == 1 and not weights:
                    self.direct = what
                    break
                self.prepared.append(what)
                source = id(what)
            elif type(what) is Call:
                name, call, stride = what.recipe.name, what, what.recipe.stride
            if call is None and not weights:
                self.plain.append(source)
                continue
            group = groups.setdefault((source, stride), _Group(source, stride, []))
            group.candidates.append(_Candidate(name, call, places(run, weights)))
        self.groups = list(groups.values())
