"""What `fastnas.accelerate` did, module by module, and what it saves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cost:
    """Of a training step's forward and backward.

    Attributes:
        seconds: the shortest of a few runs.
        saved: bytes that the forward saves for its backward.
        peak: bytes by which resident memory rises, on a GPU allocated memory; None where the system cannot tell, or it
            was not asked for.
    """

    seconds: float
    saved: int
    peak: int | None = None


@dataclass
class Entry:
    """One module.

    Attributes:
        name: in the model; "" is the model itself.
        kind: its class.
        candidates: how many candidates are computed in one operator; 0 if it stays as it was.
        reason: why it stays as it was; None if it does not.
        error: the largest relative error found by running it; None if it was not run.
        before, after: its costs, with example inputs; before is None where memory did not suffice for it.
    """

    name: str
    kind: str
    candidates: int = 0
    reason: str | None = None
    error: float | None = None
    before: Cost | None = None
    after: Cost | None = None


@dataclass
class Report:
    """Entries of all modules that are fused, or that look as if they could be; costs of the whole model as theirs."""

    entries: list[Entry] = field(default_factory=list)
    before: Cost | None = None
    after: Cost | None = None

    @property
    def fused(self) -> list[Entry]:
        """Modules that run on the operator."""
        return [e for e in self.entries if e.reason is None]

    @property
    def left(self) -> list[Entry]:
        """Modules that stay as they were."""
        return [e for e in self.entries if e.reason is not None]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        total = sum(e.candidates for e in self.fused)
        yield f"fastnas.accelerate: {len(self.fused)} modules fused, with {total} candidates; {len(self.left)} left"
        for alike in _grouped(self.fused):
            one = alike[0]
            yield f"  fused  {_named(alike)}: {one.candidates} candidates{_error(alike)}{_costs(one.before, one.after)}"
        for alike in _grouped(self.left):
            yield f"  left   {_named(alike)}: {alike[0].reason}"
        if self.after:
            yield f"  model{_costs(self.before, self.after)}"


def _grouped(entries: Iterable[Entry]) -> Iterable[list[Entry]]:
    """Those of which the same is to be said, together."""
    groups: dict[Any, list[Entry]] = {}
    for e in entries:
        groups.setdefault((e.kind, e.reason, e.candidates, _costs(e.before, e.after)), []).append(e)
    return groups.values()


def _named(alike: Sequence[Entry]) -> str:
    others = f" and {len(alike) - 1} like it" if len(alike) > 1 else ""
    return f"{alike[0].name or 'the model'} ({alike[0].kind}){others}"


def _error(alike: Sequence[Entry]) -> str:
    errors = [e.error for e in alike if e.error is not None]
    return f", error {max(errors):.0e}" if errors else ""


def _costs(before: Cost | None, after: Cost | None) -> str:
    if after is None:
        return ""
    if before is None:
        parts = [f"out of memory → {after.seconds * 1e3:.1f} ms"]
    else:
        parts = [f"{before.seconds * 1e3:.1f} → {after.seconds * 1e3:.1f} ms ({before.seconds / after.seconds:.1f}×)"]
    for what in ("saved", "peak"):
        sizes = [getattr(cost, what) for cost in (before, after) if cost is not None]
        if None not in sizes:
            parts.append(f"{what} {' → '.join(f'{size / 1e6:.1f}' for size in sizes)} MB")
    return "; " + ", ".join(parts)
