"""`fastnas.accelerate`: other people's modules, accelerated, against the same modules as they were written."""

from __future__ import annotations

import copy
import io
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import foreign
import pytest
import stock
import torch
import torch.nn.functional as F
from foreign import SIZE, C, Spoilt, chain
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import fastnas
from fastnas.swap import AccelerateError

TOLERANCE = 1e-9


def x(channels: int = C, size: int = SIZE) -> Tensor:
    return torch.randn(3, channels, size, size).double().requires_grad_()


def rows(n: int, k: int = 8) -> Tensor:
    return torch.rand(n, k).double().requires_grad_()


def weights(k: int = 8) -> Tensor:
    return torch.rand(k).double().requires_grad_()


def results(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor | None]:
    """Everything that a step computes: outputs, all gradients, buffers."""
    torch.manual_seed(3)
    out = [t for t in tree_flatten(module(*inputs))[0] if isinstance(t, Tensor)]
    given = [t for t in tree_flatten(inputs)[0] if isinstance(t, Tensor) and t.requires_grad]
    wanted = [*given, *(p for p in module.parameters() if p.requires_grad)]
    loss = sum((torch.randn_like(t) * t).sum() for t in out)
    grads = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    return [*out, *grads, *(b.clone() for b in module.buffers())]


def assert_same(ours: nn.Module, theirs: nn.Module, inputs: tuple[Any, ...]) -> None:
    pairs = zip(results(ours, inputs), results(theirs, inputs), strict=True)
    for i, (a, b) in enumerate(pairs):
        if a is None or b is None:  # no gradient is one of zeros
            assert not any(t is not None and t.any() for t in (a, b)), i
        else:
            torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, i=i: f"{i}: {m}")


def pair(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The module, twice."""
    module = module.double()
    return copy.deepcopy(module), module


STYLES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "edge": (lambda: stock.MixedOp(C, 1), lambda: (x(), weights())),
    "edge of stride 2": (lambda: stock.MixedOp(C, 2), lambda: (x(), weights())),
    "weights as a list": (foreign.WeightsAsList, lambda: (x(), list(rows(1)[0].detach().requires_grad_()))),
    "softmax inside": (foreign.SoftmaxInside, lambda: (x(),)),
    "missing candidates": (foreign.MissingCandidates, lambda: (x(), weights())),
    "bare pools": (foreign.BarePools, lambda: (x(), weights())),
    "bare pools, stride 2": (lambda: foreign.BarePools(stride=2), lambda: (x(), weights())),
    "partial channels": (foreign.PartialChannels, lambda: (x(4 * C), weights())),
    "partial channels, stride 2": (lambda: foreign.PartialChannels(stride=2), lambda: (x(4 * C), weights())),
    "drop path and no_grad": (lambda: foreign.SampledPath(C, 1), lambda: (x(), weights())),
    "shared weights": (foreign.SharedWeights, lambda: (x(), weights())),
    "unused": (lambda: foreign.Unused(C, 1), lambda: (x(), weights())),
    "cell": (lambda: stock.Cell(12, 8, C, False, False), lambda: (x(12), x(8), rows(14))),
    "cell after a reduction": (lambda: stock.Cell(12, 8, C, False, True), lambda: (x(12, 16), x(8), rows(14))),
    "reduction cell": (lambda: stock.Cell(12, 8, C, True, False), lambda: (x(12), x(8), rows(14))),
    "PC-DARTS cell": (foreign.PCCell, lambda: (x(12), x(12), rows(5), weights(5))),
    "PC-DARTS reduction": (lambda: foreign.PCCell(reduction=True), lambda: (x(12), x(12), rows(5), weights(5))),
    "stacked cell": (foreign.StackedCell, lambda: (x(12), x(12), rows(5))),
    "trellis cell": (foreign.TrellisCell, lambda: (x(12), x(6, 2 * SIZE), x(12), x(24, SIZE // 2), rows(5))),
    "trellis cell, one way": (
        lambda: foreign.TrellisCell(prev_prev=False),
        lambda: (None, x(6, 2 * SIZE), None, None, rows(5)),
    ),
}
styles = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())


@styles
@pytest.mark.parametrize("with_inputs", [False, True], ids=["guessed", "given"])
def test_computes_what_it_did(style: Any, with_inputs: bool) -> None:
    theirs, ours = pair(style[0]())
    inputs = style[1]()
    report = fastnas.accelerate(ours, example_inputs=inputs if with_inputs else None)
    if with_inputs:
        assert report.fused, str(report)
    for _ in range(3):  # also of what the first call has found out
        assert_same(ours, theirs, inputs)
    assert_same(ours.eval(), theirs.eval(), inputs)


LEFT = {
    "dilation": (lambda: chain(padding=3, dilation=3), "dilation 3"),
    "kernel": (lambda: chain(kernel=7, padding=6), "depthwise 7×7"),
    "padding": (lambda: nn.Sequential(chain(padding=0), nn.ZeroPad2d(2)), "does not end in a batch norm"),
    "circular": (lambda: chain(padding_mode="circular"), "pads with circular"),
    "biased pointwise": (lambda: chain(point_bias=True), "a convolution has a bias"),
    "grouped pointwise": (lambda: chain(point_groups=2), "not a plain 1×1"),
    "group norm": (lambda: chain(norm=lambda c: nn.GroupNorm(2, c)), "native_group_norm"),
    "spectral norm": (lambda: _spectral(), "parametrised"),  # noqa: PLW0108 # defined below
    "old spectral norm": (lambda: _old_spectral(), "hooks"),  # noqa: PLW0108
    "padded average": (lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(C)), "count_include_pad True"),
    "ceiling": (lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), nn.BatchNorm2d(C)), "ceil_mode True"),
    "pool without norm": (lambda: nn.MaxPool2d(3, 1, 1), "max_pool2d"),
    "own forward": (lambda: _own_forward(), "batch norm"),  # noqa: PLW0108
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


NORMS = {
    "momentum": {"momentum": 0.37},
    "cumulative": {"momentum": None},
    "eps": {"eps": 0.2},
    "untracked": {"track_running_stats": False},
}


@pytest.mark.parametrize("how", NORMS.values(), ids=NORMS.keys())
def test_norms_of_every_kind(how: dict[str, Any]) -> None:
    theirs, ours = pair(Spoilt(chain(norm=lambda c: nn.BatchNorm2d(c, affine=True, **how))))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.candidates for e in report.fused] == [8]
    for _ in range(2):
        assert_same(ours, theirs, (x(), weights()))
    assert_same(ours.eval(), theirs.eval(), (x(), weights()))


def cells() -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
    theirs, ours = pair(stock.Cell(12, 8, C, False, False, nodes=2))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.name for e in report.fused] == [""]
    return theirs, ours, (x(12), x(8), rows(5))


def test_leaves_the_model_as_it_was() -> None:
    network = stock.Network(C, 3)
    network.cells[1].eval()
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(network)
    identities = [id(t) for t in (*network.parameters(), *network.buffers())]
    names, modes = list(network.state_dict()), [m.training for m in network.modules()]
    versions = [t._version for t in network.buffers()]
    given = torch.randn(2, 3, 8, 8)
    state = torch.get_rng_state()
    fastnas.accelerate(network, example_inputs=given)
    assert torch.equal(state, torch.get_rng_state())
    assert identities == [id(t) for t in (*network.parameters(), *network.buffers())]
    assert versions == [t._version for t in network.buffers()]
    assert names == list(network.state_dict())
    assert modes == [m.training for m in network.modules()]
    for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in network.parameters())  # type: ignore[arg-type]


def test_restore_gives_the_original_back() -> None:
    network = stock.Network(C, 3)
    types = [type(m) for m in network.modules()]
    attributes = [set(vars(m)) for m in network.modules()]
    fastnas.accelerate(network)
    assert types != [type(m) for m in network.modules()]
    assert fastnas.restore(network) is network
    assert types == [type(m) for m in network.modules()]
    assert attributes == [set(vars(m)) for m in network.modules()]


def test_copies_and_pickles_are_accelerated_and_independent() -> None:
    theirs, ours, inputs = cells()
    ours(*inputs)
    theirs(*inputs)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(ours), torch.load(buffer, weights_only=False)):
        assert type(other).__name__ == "Cell"
        assert isinstance(other, stock.Cell)
        untouched = copy.deepcopy(ours.state_dict())
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(1.5)
        twin = copy.deepcopy(theirs)
        twin.load_state_dict(other.state_dict())
        assert_same(other, twin, inputs)
        assert all(torch.equal(a, b) for a, b in zip(untouched.values(), ours.state_dict().values(), strict=True))
    assert_same(ours, theirs, inputs)


def test_state_dicts_go_both_ways() -> None:
    theirs, ours, inputs = cells()
    fresh = stock.Cell(12, 8, C, False, False, nodes=2).double()
    ours.load_state_dict(fresh.state_dict())
    assert_same(ours, fresh, inputs)
    theirs.load_state_dict(ours.state_dict())
    assert_same(ours, theirs, inputs)
    ours.load_state_dict(fresh.state_dict(), assign=True)
    assert_same(ours, copy.deepcopy(fresh), inputs)


@pytest.mark.parametrize("where", ["_ops.0._ops.4.op.1", "_ops.0._ops.4", "_ops.1", "preprocess0"])
def test_hooks_that_come_later_see_tensors(where: str) -> None:
    theirs, ours, inputs = cells()
    met: list[list[Tensor]] = [[], []]
    for module, values in zip((ours, theirs), met, strict=True):
        module.get_submodule(where).register_forward_hook(lambda _m, _a, out, values=values: values.append(out))
    assert_same(ours, theirs, inputs)
    assert len(met[0]) == len(met[1]) == 1
    torch.testing.assert_close(met[0][0], met[1][0])


def test_a_hook_on_the_region_itself_stays() -> None:
    theirs, ours, inputs = cells()
    for module in (ours, theirs):
        module.register_forward_hook(lambda _m, _a, out: out * 2)
    assert_same(ours, theirs, inputs)


def test_a_candidate_that_is_replaced_later_runs() -> None:
    theirs, ours, inputs = cells()
    torch.manual_seed(9)
    for module in (ours, theirs):
        module._ops[1]._ops[4].op[2] = copy.deepcopy(theirs._ops[0]._ops[5].op[2])
        module._ops[2]._ops[5] = nn.Identity()
    assert_same(ours, theirs, inputs)


def test_some_parameters_frozen_and_norms_in_eval_mode() -> None:
    theirs, ours, inputs = cells()
    for module in (ours, theirs):
        for i, p in enumerate(module.parameters()):
            p.requires_grad_(i % 3 == 0)
        for m in list(module.modules())[::4]:
            m.eval()
    assert_same(ours, theirs, inputs)


def test_several_forwards_before_one_backward() -> None:
    theirs, ours, inputs = cells()
    other = (x(12), x(8), inputs[2])
    for module in (ours, theirs):
        (module(*inputs).square().sum() + module(*other).square().sum()).backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=TOLERANCE, atol=TOLERANCE)


def test_functional_call() -> None:
    theirs, ours, inputs = cells()
    given = {name: (2 * p).detach().requires_grad_() for name, p in ours.named_parameters()}
    grads = []
    for module in (ours, theirs):
        out = torch.func.functional_call(module, given, inputs)
        grads.append(torch.autograd.grad(out.square().sum(), list(given.values())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_from_outside(reentrant: bool) -> None:
    theirs, ours, inputs = cells()
    fresh = copy.deepcopy(theirs)
    for module in (ours, theirs):
        out = torch.utils.checkpoint.checkpoint(module, *inputs, use_reentrant=reentrant)
        out.square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=TOLERANCE, atol=TOLERANCE)
    if not reentrant:  # PyTorch stops the second forward before the operator has told its statistics
        theirs = copy.deepcopy(fresh)
        theirs(*inputs)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_cell_that_checkpoints_its_edges() -> None:
    theirs, ours = pair(stock.Cell(12, 8, C, False, False, nodes=2, checkpointed=True))
    inputs = (x(12), x(8), rows(5))
    report = fastnas.accelerate(ours, example_inputs=inputs)
    assert sum(e.candidates for e in report.fused) >= 40, str(report)
    count = len(list(theirs.buffers()))
    for a, b in zip(results(ours, inputs)[:-count], results(theirs, inputs)[:-count], strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def test_without_gradients_and_in_inference_mode() -> None:
    theirs, ours, inputs = cells()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(ours(*inputs), theirs(*inputs), rtol=TOLERANCE, atol=TOLERANCE)


def test_data_parallel_s_replicas_run_as_written() -> None:
    theirs, ours, inputs = cells()
    replica = ours._replicate_for_data_parallel()
    replica._modules = dict(ours._modules)
    torch.testing.assert_close(replica(*inputs), theirs(*inputs), rtol=TOLERANCE, atol=TOLERANCE)


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


def test_the_report_says_what_was_done_and_what_it_saves() -> None:
    network = stock.Network(C, 3)
    report = fastnas.accelerate(network, example_inputs=torch.randn(2, 3, 16, 16), strict=True)
    assert [e.name for e in report.fused] == ["cells.0", "cells.1", "cells.2"]
    assert all(e.candidates == 114 and e.error is not None and e.error < TOLERANCE for e in report.fused)
    assert report.before is not None
    assert report.after is not None
    assert report.before.saved is not None
    assert report.after.saved is not None
    assert report.after.saved < report.before.saved / 5
    assert "3 modules fused, with 342 candidates; 0 left" in str(report)


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


def test_twenty_steps_from_one_seed() -> None:
    networks = pair(stock.Network(C, 3))
    fastnas.accelerate(networks[1], strict=True)
    losses = []
    for network in networks:
        torch.manual_seed(1)
        sgd = torch.optim.SGD(network.weight_parameters(), 0.025, momentum=0.9)
        adam = torch.optim.Adam(network.arch_parameters(), 3e-4)
        for _ in range(20):
            images, labels = torch.randn(4, 3, 8, 8).double(), torch.randint(10, (4,))
            for optimiser in (adam, sgd):
                network.zero_grad()
                loss = F.cross_entropy(network(images), labels)
                loss.backward()
                optimiser.step()
            losses.append(loss.item())
    torch.testing.assert_close(losses[:20], losses[20:], rtol=1e-9, atol=1e-9)
    for a, b in zip(networks[0].arch_parameters(), networks[1].arch_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_importing_fastnas_does_not_import_torch() -> None:
    code = "import sys, fastnas; assert 'torch' not in sys.modules; fastnas.accelerate; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def random_cell(generator: random.Random) -> tuple[nn.Module, tuple[Any, ...]]:
    """A cell of random candidates, order, widths, strides, wiring, affine norms and sizes."""
    channels, nodes = generator.choice([2, 4, 6]), generator.randint(1, 3)
    strides = generator.choice([(1, 1), (2, 2)])
    edges: list[list[tuple[int, nn.ModuleList]]] = []
    for node in range(nodes):
        sources = generator.sample(range(2 + node), generator.randint(1, 2 + node))
        edges.append([(s, random_candidates(generator, channels, strides[0] if s < 2 else 1)) for s in sources])
    size = generator.choice([4, 6, 8])
    cell = RandomCell(edges, generator.choice(["sum", "stack", "loop"]), generator.random() < 0.5)
    count = sum(map(len, edges))
    return cell, (x(channels, size), x(channels, size), rows(count))


def random_candidates(generator: random.Random, channels: int, stride: int) -> nn.ModuleList:
    pool = [*stock.candidates(channels, stride)]
    pool += [foreign.FunctionalSep(channels, k, stride, affine=a) for k in (3, 5) for a in (False, True)]
    pool += [foreign.FunctionalSep(channels, 7, stride), nn.MaxPool2d(3, stride, 1)]
    return nn.ModuleList(generator.sample(pool, generator.randint(1, 8)))


class RandomCell(nn.Module):
    def __init__(self, edges: list[list[tuple[int, nn.ModuleList]]], how: str, nodes_only: bool) -> None:
        super().__init__()
        self.sources = [[source for source, _ in node] for node in edges]
        self.dag = nn.ModuleList(nn.ModuleList(ops for _, ops in node) for node in edges)
        self.how, self.nodes_only = how, nodes_only

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states, row = [s0, s1], iter(weights)
        for sources, node in zip(self.sources, self.dag, strict=True):
            terms = []
            for source, ops in zip(sources, node, strict=True):
                terms += [w * op(states[source]) for w, op in zip(next(row), ops)]  # noqa: B905  # fewer candidates
            if self.how == "stack":
                states.append(torch.stack(terms).sum(0))
            elif self.how == "loop":
                total = terms[0]
                for term in terms[1:]:
                    total = total + term
                states.append(total)
            else:
                states.append(sum(terms))
        nodes = states[2:]
        last = [n for n in nodes if n.shape == nodes[-1].shape]
        return torch.cat(last, 1) if self.nodes_only else last[-1].relu() + last[0]


def test_random_cells(pytestconfig: pytest.Config) -> None:
    for seed in range(pytestconfig.getoption("--fuzz")):
        generator = random.Random(seed)
        torch.manual_seed(seed)
        cell, inputs = random_cell(generator)
        theirs, ours = pair(cell)
        try:
            copy.deepcopy(theirs)(*inputs)
        except RuntimeError:  # states of two sizes meet
            continue
        fastnas.accelerate(ours, example_inputs=inputs)
        for _ in range(2):
            try:
                assert_same(ours, theirs, inputs)
            except AssertionError as error:  # noqa: PERF203 # says which cell it was
                raise AssertionError(f"seed {seed}") from error
        assert_same(ours.eval(), theirs.eval(), inputs)
