"""What a step is predicted to cost on GPUs, as a roofline and as times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastnas.bench.gpu_cost import Cost

STOCK, FAST, LEAN = "stock", "fastnas fast", "fastnas lean"
COLOURS = {STOCK: "#d55e00", FAST: "#0072b2", LEAN: "#009e73"}
GREY = "#777777"
NAMED = 6  # kernels of each network


def draw(title: str, counts: Mapping[str, Sequence[Cost]], devices: Sequence[Any], stem: Path) -> list[Path]:
    """Draws to `stem`.svg and `stem`.png: the first device's roofline with every kernel, and times on all devices.

    Args:
        title: what was counted.
        counts: the kernels of every network.
        devices: with `name`, `bytes` and `flops` a second, and `seconds(costs)`.
        stem: path without a suffix.

    Returns:
        The paths.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    figure.suptitle(f"{title}: forward + backward, predicted from counts, not measured")
    roofline, times = figure.subplots(1, 2)
    _roofline(roofline, counts, devices[0])
    _times(times, counts, devices)
    handles, labels = times.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=150)
    return paths


def _roofline(axes: Axes, counts: Mapping[str, Sequence[Cost]], device: Any) -> None:
    intensity = np.geomspace(0.03, 300, 200)
    axes.plot(intensity, np.minimum(intensity * device.bytes, device.flops) / 1e12, color=GREY, linewidth=1)
    for name, corner in ((STOCK, (0.03, 0.97)), (FAST, (0.97, 0.03))):
        total = device.seconds(counts[name])
        lines = []
        for kernel, costs in _by_share(counts[name], device).items():
            seconds = device.seconds(costs)
            flops, moved = (sum(getattr(cost, of) for cost in costs) for of in ("flops", "bytes"))
            place = (flops / moved, flops / seconds / 1e12)
            axes.scatter(*place, s=1500 * seconds / total, color=COLOURS[name], alpha=0.4, linewidths=0)
            lines.append(f"{kernel} {seconds / total:.0%}")
        vertical, horizontal = ("top", "left") if name == STOCK else ("bottom", "right")
        axes.text(
            *corner, "\n".join([name, *lines[:NAMED]]), transform=axes.transAxes, fontsize=8, color=COLOURS[name],
            va=vertical, ha=horizontal,
        )  # fmt: skip
    axes.set_xlim(0.02, 300)
    axes.set(xscale="log", yscale="log", xlabel="FLOPs for each byte of DRAM traffic", ylabel="TFLOP/s")
    axes.set_ylim(1e-2, 3 * device.flops / 1e12)
    axes.set_title(f"{device.name}: kernels under its roofline (area: share of the network's time)", fontsize=10)
    axes.grid(alpha=0.2)


def _by_share(costs: Sequence[Cost], device: Any) -> dict[str, list[Cost]]:
    """Those that compute, by name, the name that takes most time first."""
    result: dict[str, list[Cost]] = {}
    for cost in costs:
        if cost.flops:
            result.setdefault(cost.kernel, []).append(cost)
    return dict(sorted(result.items(), key=lambda item: -device.seconds(item[1])))


def _times(axes: Axes, counts: Mapping[str, Sequence[Cost]], devices: Sequence[Any]) -> None:
    width = 0.8 / len(counts)
    for i, (name, costs) in enumerate(counts.items()):
        places = np.arange(len(devices)) + (i - (len(counts) - 1) / 2) * width
        bars = axes.bar(places, [1e3 * d.seconds(costs) for d in devices], width, color=COLOURS[name], label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(devices)), [device.name for device in devices])
    axes.set(ylabel="predicted ms", yscale="log")
    axes.set_title("time on each GPU")
    axes.grid(axis="y", alpha=0.2)
