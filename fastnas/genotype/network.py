"""Auto-DeepLab's network level: paths through the trellis of layers and scales (Liu et al., CVPR 2019, §3.2, §4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from fastnas.genotype.genotype import SCALES, shorten

DIRECTIONS = (-1, 0, 1)  # up to the next finer scale, same, down to the next coarser one: the columns of β

Beta = Iterable[Iterable[Iterable[float]]]  # nested lists, arrays, tensors


def log_transitions(beta: Beta) -> list[list[list[float]]]:
    """Log-probabilities of every step through the trellis: for each layer and scale a softmax over its ways out.

    A way that would leave the trellis does not take part in the softmax; it gets -inf.

    Args:
        beta: before softmax, (layers, scales, 3). `beta[l][s]` belongs to the ways from scale s of the layer before
            layer l (the stem before layer 0) to scales s - 1, s and s + 1 of layer l.

    Raises:
        ValueError: another shape, or a number that is not finite; what lies outside the trellis is not looked at.
    """
    layers = [[[float(value) for value in ways] for ways in layer] for layer in beta]
    scales = len(layers[0]) if layers else 0
    found = sorted({(len(layer), len(ways)) for layer in layers for ways in layer})
    if not scales or found != [(scales, len(DIRECTIONS))] or not all(layers):
        raise ValueError(f"β must be (layers, scales, 3), got {len(layers)} layers of {shorten(found)}")
    return [
        [_log_softmax(ways, layer, scale, scales) for scale, ways in enumerate(table)]
        for layer, table in enumerate(layers)
    ]


def _log_softmax(ways: Sequence[float], layer: int, scale: int, scales: int) -> list[float]:
    inside = [0 <= scale + direction < scales for direction in DIRECTIONS]
    kept = [way for way, exists in zip(ways, inside, strict=True) if exists]
    if not all(map(math.isfinite, kept)):
        raise ValueError(f"β must be finite numbers, got {kept} at layer {layer}, scale {scale}")
    largest = max(kept)
    total = largest + math.log(sum(math.exp(way - largest) for way in kept))
    return [way - total if exists else -math.inf for way, exists in zip(ways, inside, strict=True)]


def best_path(beta: Beta) -> tuple[int, ...]:
    """The path from the stem, at the finest scale, through all layers whose probabilities have the largest product.

    Viterbi's algorithm on logarithms (§4.3). Of equals, the path that ends, and before that comes, from the finer
    scale wins.

    Args:
        beta: see `log_transitions`.

    Returns:
        The scale of each layer, 0 the finest.

    Raises:
        ValueError: see `log_transitions`.
    """
    steps = log_transitions(beta)
    scales = range(len(steps[0]))
    scores = [0.0] + [-math.inf] * (len(scales) - 1)
    origins = []
    for table in steps:
        arrivals = [[(s, scores[s] + _step(table, s, target)) for s in scales] for target in scales]
        best = [max(ways, key=lambda way: way[1]) for ways in arrivals]
        origins.append([origin for origin, _ in best])
        scores = [score for _, score in best]
    path = [max(scales, key=lambda s: scores[s])]
    for origin in reversed(origins[1:]):
        path.append(origin[path[-1]])
    return tuple(reversed(path))


def _step(table: Sequence[Sequence[float]], source: int, target: int) -> float:
    return table[source][target - source + 1] if abs(target - source) <= 1 else -math.inf


def _deeplabv3(layers: int) -> tuple[int, ...]:
    """A ResNet's four stages of equal depth, of which the last, made of atrous convolutions, stays at scale 16."""
    return tuple(min(layer, 4 * layer // layers, 2) for layer in range(layers))


def _conv_deconv(layers: int) -> tuple[int, ...]:
    """Evenly down to the coarsest scale and back to the finest."""
    half = max(layers // 2, 1)
    depths = [min(layer, layers - layer) for layer in range(1, layers + 1)]
    return tuple(min(depth, (SCALES - 1) * depth // half) for depth in depths)


def _stacked_hourglass(layers: int) -> tuple[int, ...]:
    """Down and back twice."""
    return _conv_deconv(layers - layers // 2) + _conv_deconv(layers // 2)


NAMED_PATHS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "deeplabv3": _deeplabv3,
    "conv_deconv": _conv_deconv,
    "stacked_hourglass": _stacked_hourglass,
}


def named_path(name: str, layers: int = 12) -> tuple[int, ...]:
    """The path of a network that the paper names as a special case of its space (§3.2, figure 2).

    The paper draws them; how their stages share other numbers of layers is this library's choice: "deeplabv3" goes down
    to scale 16 in quarters of the layers and stays there, "conv_deconv" goes down to 32 and back to 4,
    "stacked_hourglass" does so twice. Too few layers for that go as far as they can.

    Raises:
        ValueError: an unknown name, or less than one layer.
    """
    if name not in NAMED_PATHS:
        raise ValueError(f"expected a path named {', '.join(NAMED_PATHS)}, got {shorten(name)}")
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    return NAMED_PATHS[name](layers)
