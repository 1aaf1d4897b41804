"""What `fastnas.accelerate` keeps of a model, and what may still be done with it."""

from __future__ import annotations

import copy
import gc
import io
from collections.abc import Callable

import foreign
import foreign_networks
import pytest
import stock
import torch
from foreign import C
from swapped import TOLERANCE, assert_same, pair, results, rows, x
from torch import Tensor, nn

import fastnas
from fastnas.threads import using_threads


def cells() -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
    theirs, ours = pair(stock.Cell(12, 8, C, False, False, nodes=2))
    report = fastnas.accelerate(ours, strict=True)
    assert [e.name for e in report.fused] == [""]
    return theirs, ours, (x(12), x(8), rows(5))


def test_leaves_the_model_as_it_was(one_thread: None, unmeasured: None) -> None:
    network = foreign_networks.Darts()
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


def test_code_is_tried_with_one_thread_and_the_number_of_threads_stays() -> None:
    class Asks(stock.MixedOp):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            asked.append(torch.get_num_threads())
            return super().forward(x, weights)

    asked: list[int] = []
    with using_threads(2):
        fastnas.accelerate(Asks(C, 1), strict=True)
        assert torch.get_num_threads() == 2
    assert set(asked) == {1}


def test_restore_gives_the_original_back() -> None:
    network = foreign_networks.Darts()
    types = [type(m) for m in network.modules()]
    attributes = [set(vars(m)) for m in network.modules()]
    fastnas.accelerate(network)
    assert types != [type(m) for m in network.modules()]
    assert fastnas.restore(network) is network
    assert types == [type(m) for m in network.modules()]
    assert attributes == [set(vars(m)) for m in network.modules()]


class _Flagged(nn.Module):
    """A candidate with a flag of its own, a tuple and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.op, self.off, self.scale, self.steps = foreign.chain(), False, (1.0,), [1]

    def forward(self, x: Tensor) -> Tensor:
        return x if self.off else self.op(x) if self.scale[0] == sum(self.steps) else self.scale[0] * self.op(x)


ATTRIBUTES: dict[str, Callable[[_Flagged], None]] = {
    "flag": lambda m: setattr(m, "off", True),
    "tuple": lambda m: setattr(m, "scale", (3.0,)),
    "list": lambda m: m.steps.append(1),
    "dilation": lambda m: m.op[1].__dict__.update(dilation=(1, 1), padding=(1, 1)),
    "stride": lambda m: setattr(m.op[2], "stride", (2, 2)),
    "a new attribute": lambda m: setattr(m.op[0], "forward", lambda x: 2 * x),
    "replaced": lambda m: setattr(m.op[3], "forward", lambda x: 2 * x),
    "untracked": lambda m: setattr(m.op[3], "track_running_stats", False),
    "eps": lambda m: setattr(m.op[3], "eps", 0.3),
}


@pytest.mark.parametrize("change", ATTRIBUTES.values(), ids=ATTRIBUTES.keys())
@pytest.mark.parametrize("copied", [False, True], ids=["", "copied"])
def test_what_is_changed_about_a_candidate_counts(change: Callable[[_Flagged], None], copied: bool) -> None:
    theirs, ours = pair(foreign.Spoilt(_Flagged()))
    assert [e.candidates for e in fastnas.accelerate(ours, strict=True).fused] == [8]
    ours = copy.deepcopy(ours) if copied else ours
    inputs = x(), rows(1)[0]
    assert_same(ours, theirs, inputs)
    for module in (ours, theirs):
        change(module._ops[4])
    if change is ATTRIBUTES["stride"]:  # fails as the other does
        with pytest.raises(RuntimeError, match="size"):
            ours(*inputs)
        return
    for mode in (True, False):
        assert_same(ours.train(mode), theirs.train(mode), inputs)


class _Head(nn.Module):
    """Works in place on what a cell returns."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = stock.Cell(C, C, C, False, False, nodes=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        out: Tensor = self.relu(self.cell(x, x, weights))
        return out


@pytest.mark.parametrize("memory", ["fast", "lean"])
@pytest.mark.parametrize("with_inputs", [False, True], ids=["guessed", "given"])
def test_results_may_be_changed_in_place(with_inputs: bool, memory: str, unmeasured: None) -> None:
    theirs, ours = pair(_Head())
    inputs = (x(), rows(5))
    report = fastnas.accelerate(ours, memory, inputs if with_inputs else None, strict=True)
    assert [e.name for e in report.fused] == ["cell"]
    assert_same(ours, theirs, inputs)


def test_modules_made_by_the_class_of_an_accelerated_one_are_as_written() -> None:
    """As `new()` of a second-order architect may make them."""
    theirs, ours, inputs = cells()
    copies = [type(m)(12, 8, C, False, False, nodes=2).double() for m in (theirs, ours)]
    copies[1].load_state_dict(copies[0].state_dict())
    assert_same(copies[1], copies[0], inputs)
    chain = type(ours._ops[0]._ops[4])(C, 3, 1)  # in a region that runs
    ours._ops[0]._ops[4] = chain.double()
    theirs._ops[0]._ops[4] = stock.SepConv(C, 3, 1).double()
    theirs._ops[0]._ops[4].load_state_dict(chain.state_dict())
    assert_same(ours, theirs, inputs)
    fastnas.accelerate(copies[1], strict=True)
    assert_same(copies[1], copies[0], inputs)
    assert type(fastnas.restore(copies[1])) is stock.Cell


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


def test_nothing_outlives_a_call_that_is_not_kept() -> None:
    """References in a circle would keep every activation until the garbage collector runs, as a rule too late."""
    _, ours, inputs = cells()
    gc.collect()
    gc.disable()
    try:
        ours(*inputs)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [o for o in gc.garbage if type(o) is Tensor]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_what_the_code_keeps_of_its_candidates_can_be_used_afterwards() -> None:
    class Keeping(stock.MixedOp):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            parts = [w * op(x) for w, op in zip(weights, self._ops, strict=True)]
            self.kept = sum(parts[3:6])
            out: Tensor = sum(parts)  # type: ignore[assignment]
            return out

    theirs, ours = pair(Keeping(C, 1))
    assert fastnas.accelerate(ours, strict=True).fused
    inputs = (x(), rows(1)[0])
    grads = []
    for module in (ours, theirs):
        (module(*inputs).square().sum() + module.kept.square().sum()).backward()
        grads.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(*grads, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()), rtol=TOLERANCE, atol=TOLERANCE)


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
    for module in (ours, theirs):
        out = torch.utils.checkpoint.checkpoint(module, *inputs, use_reentrant=reentrant)
        out.square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=TOLERANCE, atol=TOLERANCE)
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
