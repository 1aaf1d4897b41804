"""The largest size that fits, from few predictions: memory grows nearly linearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_SECANTS = 8  # guesses by a line; from then on the range is halved


def largest(peak: Callable[[int], int], limit: int, start: int, power: int, least: int, base: int) -> int | None:
    """The largest n with peak(n) ≤ limit, where peak does not fall, so peak(n + 1) > limit; both are evaluated.

    Args:
        peak: bytes for n.
        limit: bytes.
        start: the first n to try.
        power: peak grows nearly with this power of n.
        least: the smallest n that there is.
        base: about what peak is at 0.

    Returns:
        n, or None if not even `least` fits.
    """
    known = {0: base}
    fits, over = least - 1, None
    n = max(start, least)
    while over is None or over - fits > 1:
        known[n] = peak(n)
        if known[n] <= limit:
            fits = n
        else:
            over = n
        # Steps in the peak, where a scale's size is rounded, mislead a line that does not lie across the limit.
        near = sorted(known, key=lambda m: abs(known[m] - limit))[:2]
        if over is not None and fits in known:
            near = [fits, over]
        n = _guess([(m, known[m]) for m in near], limit, power)
        if len(known) > _SECANTS:
            n = 2 * fits if over is None else (fits + over) // 2
        n = max(n, fits + 1)
        n = n if over is None else min(n, over - 1)
    return None if fits < least else fits


def _guess(points: Sequence[tuple[int, int]], limit: int, power: int) -> int:
    """Where the line through two points meets the limit."""
    (n, size), (m, other) = points
    if other == size:
        return 2 * max(n, m)
    met: float = n**power + (limit - size) * (n**power - m**power) / (size - other)
    return int(max(met, 0.0) ** (1 / power))
