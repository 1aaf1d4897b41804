"""The cell operator against plain PyTorch: the same function, the same gradients, on the whole table of cases."""

from __future__ import annotations

import pytest
import torch
from operator_cases import BY_NAME, CASES, Case, error, fused, names, problem, run

from fastnas.ops import reference

BACKENDS = ["cpu"]
MODES = [(backend, memory) for backend in BACKENDS for memory in ("fast", "lean")]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
modes = pytest.mark.parametrize(("backend", "memory"), MODES)


@cases
@modes
@pytest.mark.usefixtures("poisoned")
def test_agrees_with_the_reference_in_float64(case: Case, backend: str, memory: str) -> None:
    p = problem(case)
    exact, ours = run(reference.cell, p), run(fused(backend, memory), p)
    for name, a, b in zip(names(p), ours, exact, strict=True):
        assert a.shape == b.shape, name
        assert error(a, b) <= 1e-11 * max(1.0, b.abs().max().item() if b.numel() else 0.0), name


SEEDS = range(8)


def assert_as_exact_as_eager(case: Case, backend: str, memory: str, transform=lambda p: p) -> None:  # type: ignore[no-untyped-def]
    """Error against float64 at most twice eager's own, each the largest over seeds; scalars may differ by some ulp of Σ|terms|."""
    eager: dict[str, float] = {}
    ours: dict[str, float] = {}
    scale: dict[str, float] = {}
    for seed in SEEDS:
        p = transform(problem(case, seed))
        single = p.to(torch.float32)
        exact = run(reference.cell, p)
        for name, e, a, b in zip(names(p), exact, run(reference.cell, single), run(fused(backend, memory), single), strict=True):
            eager[name] = max(eager.get(name, 0.0), error(a, e))
            ours[name] = max(ours.get(name, 0.0), error(b, e))
            scale[name] = max(scale.get(name, 0.0), e.abs().max().item() if e.numel() else 0.0)
    floor = 4 * torch.finfo(torch.float32).eps
    terms = sum(abs(scale[name]) for name in names(p) if name.startswith(("out", "∂input")))
    for name in eager:
        slack = floor * (max(scale[name], terms) if name == "∂α" else scale[name])
        assert ours[name] <= 2 * eager[name] + slack, (name, ours[name], eager[name])


PRECISE = ["size-8x8-s1", "size-17x9-s2", "channels-16-s1", "channels-34-s2", "affine", "mixed-norms", "cell-reduction"]


@pytest.mark.parametrize("name", PRECISE)
@modes
def test_as_exact_as_eager_in_float32(name: str, backend: str, memory: str) -> None:
    assert_as_exact_as_eager(BY_NAME[name], backend, memory)
