"""The memory figures, on functions whose figures are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastnas.measure import peak, saved_for_backward
from fastnas.nn import DartsSupernet

MB = 1 << 20


class SavesTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        y = x.exp()
        ctx.save_for_backward(y, y[:1], x)
        return y.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def,override]
        return grad * ctx.saved_tensors[0]


def test_a_storage_counts_once_and_what_exists_anyway_not_at_all() -> None:
    x = torch.randn(1000, 1000, requires_grad=True)
    assert saved_for_backward(lambda: SavesTwice.apply(x), [x]).storages == 4_000_000
    assert saved_for_backward(lambda: SavesTwice.apply(x)).storages == 8_000_000


def test_parameters_and_inputs_can_be_left_out() -> None:
    linear, x = nn.Linear(100, 50), torch.randn(32, 100)
    assert saved_for_backward(lambda: linear(x), [x, *linear.parameters()]).storages == 0
    assert saved_for_backward(lambda: linear(x).relu(), [x, *linear.parameters()]).storages == 32 * 50 * 4


def test_a_view_counts_with_its_whole_storage() -> None:
    x = torch.randn(1000, 10, requires_grad=True)
    assert saved_for_backward(lambda: (x * 1)[:10].exp().sin(), [x]).storages == 10 * 10 * 4
    assert saved_for_backward(lambda: torch.sin((x * 1)[:10]), [x]).storages == 1000 * 10 * 4


def test_resident_memory_confirms() -> None:
    x = torch.randn(30 * MB // 4, requires_grad=True)
    saved = saved_for_backward(lambda: SavesTwice.apply(x), [x])
    # exp's result, and the clone that is returned
    assert 0.9 * 60 * MB < saved.resident < 1.2 * 60 * MB


def test_peak_sees_what_was_freed() -> None:
    def step() -> None:
        t = torch.ones(200 * MB // 4)
        del t

    assert 0.95 * 200 * MB < peak(step) < 1.05 * 200 * MB


def test_lean_saves_node_states_and_fast_stage_outputs_besides() -> None:
    """design: 6 states a normal cell (2 of them preprocessed) in `lean`, and 28 stage outputs more in `fast`."""
    x = torch.randn(2, 3, 16, 16)
    sizes = {}
    for memory in ("fast", "lean"):
        network = DartsSupernet(16, 1, 10, memory=memory)
        existing = [x, *network.parameters(), *network.buffers()]
        sizes[memory] = saved_for_backward(lambda network=network: network(x), existing).storages
    plane = 2 * 32 * 8 * 8 * 4  # the one cell reduces: 32 channels at 8×8
    assert sizes["fast"] - sizes["lean"] == 28 * plane
