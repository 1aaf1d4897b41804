"""What `fastnas.accelerate` did, module by module, and what it saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


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
        before, after: its costs, with example inputs.
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
    """Entries of all modules that are fused, or that look as if they could be; costs of the whole model."""

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
        for e in self.fused:
            yield f"  fused  {_named(e)}: {e.candidates} candidates{_error(e)}{_costs(e.before, e.after)}"
        alike: dict[tuple[str, str | None], list[Entry]] = {}
        for e in self.left:
            alike.setdefault((e.kind, e.reason), []).append(e)
        for (_, reason), entries in alike.items():
            others = f" and {len(entries) - 1} like it" if len(entries) > 1 else ""
            yield f"  left   {_named(entries[0])}{others}: {reason}"
        if self.before and self.after:
            yield f"  model{_costs(self.before, self.after)}"


def _named(entry: Entry) -> str:
    return f"{entry.name or 'the model'} ({entry.kind})"


def _error(entry: Entry) -> str:
    return "" if entry.error is None else f", error {entry.error:.0e}"


def _costs(before: Cost | None, after: Cost | None) -> str:
    if before is None or after is None:
        return ""
    parts = [f"{before.seconds * 1e3:.1f} → {after.seconds * 1e3:.1f} ms ({before.seconds / after.seconds:.1f}×)"]
    for what, a, b in (("saved", before.saved, after.saved), ("peak", before.peak, after.peak)):
        if a is not None and b is not None:
            parts.append(f"{what} {a / 1e6:.1f} → {b / 1e6:.1f} MB")
    return "; " + ", ".join(parts)
