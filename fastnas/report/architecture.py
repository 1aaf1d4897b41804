"""α and β epoch by epoch, and what they lead to, as pictures that follow the browser's theme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from fastnas.genotype import INPUTS, AutoDeepLabGenotype, CellGenotype, Genotype
from fastnas.genotype.draw import FAMILIES, INK, STATES, cell_figure
from fastnas.genotype.network import log_transitions
from fastnas.genotype.text import cell_text
from fastnas.genotype.trellis import BAND_COLOR, IDLE, trellis_figure
from fastnas.ops import DARTS_CANDIDATES
from fastnas.report.entry import Entry
from fastnas.search.alphas import decode_row, strengths

MOST_FRAMES = 200  # epochs that the slider has, spread over those of a longer search
SHADE = 0.375  # the least weight that has the darkest colour: three times that of eight candidates alike
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "cell": "Cell"}

_TITLE = 40  # points at the top of a figure, for the title that the page has instead
_SMALLEST = 0.55  # of its size to which a figure shrinks on a narrow screen
_THEMED = {
    **{f"fill: {color}; stroke: {color}": f"fill: var(--s{i}); stroke: var(--s{i})" for i, color in enumerate(STATES)},
    **{f"stroke: {color}": f"stroke: var(--s{i})" for i, color in enumerate(STATES)},
    **{f"fill: {color}": f"fill: var(--plate-{family})" for family, color in FAMILIES.items()},
    f"fill: {IDLE}": "fill: var(--idle)",
    f"stroke: {BAND_COLOR}": "stroke: var(--band)",
    f"stroke: {INK}": "stroke: var(--ink)",
    f"fill: {INK}": "fill: var(--box)",
    "stroke: #ffffff": "stroke: var(--surface)",
}


def cells(genotype: Genotype | AutoDeepLabGenotype) -> dict[str, CellGenotype]:
    """The cells of a genotype by the names that α has in a history."""
    if isinstance(genotype, Genotype):
        return {"normal": genotype.normal, "reduce": genotype.reduce}
    return {"cell": genotype.cell}


def drawings(entry: Entry) -> list[dict[str, Any]]:
    """Cells, and the trellis, each with a title, an SVG, and the same in words."""
    drawn: list[dict[str, Any]] = [
        {"title": TITLES[name], "svg": svg(cell_figure(cell, "")), "text": cell_text(cell)}
        for name, cell in cells(entry.genotype).items()
    ]
    if isinstance(entry.genotype, AutoDeepLabGenotype):
        path = entry.genotype.path
        scales = " ".join(f"1/{4 << level}" for level in path)
        figure = trellis_figure(path, "", entry.history[-1].get("beta"))
        drawn.append({"title": "Path through the scales", "svg": svg(figure), "text": [scales], "trellis": True})
    return drawn


def frames(entry: Entry) -> dict[str, Any] | None:
    """What the slider shows: for each epoch candidates' strengths in thousandths, the kept operations, β and the path.

    None for what has no α: a training, and a search without one.
    """
    if "alpha" not in entry.history[-1]:
        return None
    count = len(entry.history)
    rows = [entry.history[i] for i in torch.linspace(0, count - 1, min(count, MOST_FRAMES)).round().int().tolist()]
    epochs = [row["epoch"] for row in rows]
    shown: dict[str, Any] = {"epochs": epochs, "of": count, "cells": {}, "ways": [], "paths": []}
    genotypes = [decode_row(row) for row in rows]
    for name in rows[0]["alpha"]:
        weights = torch.stack([strengths(row)[name] for row in rows])
        shown["cells"][name] = {
            "title": TITLES[name],
            "weights": (1000 * weights).round().int().tolist(),
            "kept": [_kept(cells(genotype)[name]) for genotype in genotypes],
            "edges": _edges(cells(genotypes[-1])[name]),
        }
    for row, genotype in zip(rows, genotypes, strict=True):
        if isinstance(genotype, AutoDeepLabGenotype):
            shown["ways"].append(_thousandths(log_transitions(row["beta"])))
            shown["paths"].append([0, *genotype.path])
    highest = max(max(map(max, frame)) for cell in shown["cells"].values() for frame in cell["weights"])
    return {**shown, "candidates": list(DARTS_CANDIDATES), "high": max(highest / 1000, SHADE)}


def _edges(cell: CellGenotype) -> list[tuple[str, str]]:
    """Node and source of each row of α."""
    names = ["cell k−2", "cell k−1", *(f"node {i}" for i in range(len(cell.nodes)))]
    return [(names[INPUTS + i], names[s]) for i in range(len(cell.nodes)) for s in range(INPUTS + i)]


def _kept(cell: CellGenotype) -> list[list[int]]:
    """Row and column in α of each operation that the cell keeps."""
    return [
        [sum(range(INPUTS, INPUTS + i)) + source, DARTS_CANDIDATES.index(operation)]
        for i, node in enumerate(cell.nodes)
        for operation, source in node
    ]


def _thousandths(steps: Sequence[Sequence[Sequence[float]]]) -> list[list[list[int]]]:
    return [[[round(1000 * math.exp(way)) for way in ways] for ways in layer] for layer in steps]


def svg(figure: Figure) -> Markup:
    """A figure as SVG inside a page: colours are the page's variables, texts are texts, ids are data."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastnas"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(band|head|head-text|way-[\d-]+|node-[\d-]+)"', r' data-part="\1"', text)
    text = re.sub(r' id="[^"]*"', "", text)  # several figures in a page would have the same
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size
    width, height = float(size[1]), float(size[2])
    view = f'viewBox="0 {_TITLE} {width:g} {height - _TITLE:g}"'
    style = f"max-width: {width:g}px; min-width: {_SMALLEST * width:g}px"
    text = re.sub(r"<svg [^>]*>", f'<svg aria-hidden="true" style="{style}" {view}>', text, count=1)
    text = re.sub(r"font-family: [^;]*; ", "", text)
    text = re.sub(rf'(<(?:g|text|tspan) style="[^"]*)fill: {INK}', r"\1fill: var(--ink)", text)
    for color, variable in _THEMED.items():
        text = text.replace(color, variable)
    return Markup(text)
