"""The page: entries, drawings and figures put into the template."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastnas import __version__
from fastnas.report.architecture import drawings, frames
from fastnas.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, panels
from fastnas.report.entry import Entry, read_entries
from fastnas.report.figures import against, key_figures, percent, recorded, size
from fastnas.report.memory import measured, predicted, search_of
from fastnas.search.files import write_atomically

KINDS = {
    "search": "Searches (DARTS)",
    "search auto-deeplab": "Searches (Auto-DeepLab)",
    "retrain": "Trainings",
    "retrain auto-deeplab": "Trainings (segmentation)",
}


def write_report(folders: Sequence[Path], out: Path, measure: bool = False) -> None:
    """Writes one page about the runs in `folders`; it needs no other file and no network.

    Args:
        measure: also times a few steps of every search's network, fused and in plain PyTorch.

    Raises:
        UserError: a run cannot be read, or `out` cannot be written; what was there before is unchanged.
    """
    entries = list(enumerate(read_entries(folders)))
    groups = [
        {
            "title": title,
            "searched": kind.startswith("search"),
            "items": [{"number": i, "run": entry} for i, entry in runs],
            "panels": panels(runs),
        }
        for kind, title in KINDS.items()
        if (runs := [(i, entry) for i, entry in entries if entry.record.command == kind])
    ]
    page = (
        _environment()
        .get_template("page.html")
        .render(
            version=__version__,
            entries=[{"number": i, "run": entry, **_about(entry, measure)} for i, entry in entries],
            groups=groups,
            titles=_titles([key_figures(entry) for _, entry in entries]),
            varying=_varying([entry for _, entry in entries]),
            box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
            style=_inlined("page.css"),
            script=_inlined("page.js"),
        )
    )
    write_atomically(out, page.encode())


def _about(entry: Entry, measure: bool) -> dict[str, Any]:
    shown, search = frames(entry), search_of(entry)
    threads = entry.config.get("threads") or 1
    return {
        "figures": key_figures(entry),
        "recorded": recorded(entry),
        "drawings": drawings(entry),
        "frames": shown,
        "moving": shown and {name: shown[name] for name in ("epochs", "of", "high", "ways", "paths", "cells")},
        "search": search,
        "memory": predicted(search, threads) if search else None,
        "time": measured(search, entry.config["memory"], threads) if search and measure else None,
    }


def _titles(figures: Sequence[dict[str, str]]) -> list[str]:
    """Those of all runs, in an order that suits each."""
    places = {title: max([*run].index(title) for run in figures if title in run) for run in figures for title in run}
    return sorted(places, key=places.__getitem__)


def _varying(entries: Sequence[Entry]) -> set[str]:
    """Options in which runs of one kind differ."""
    return {
        name
        for entry in entries
        for other in entries
        if entry.record.command == other.record.command
        for name in entry.config.keys() | other.config.keys()
        if entry.config.get(name) != other.config.get(name)
    }


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("fastnas.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(against=against, bytes=size, percent=percent)
    return made


def _inlined(name: str) -> Markup:
    return Markup(files("fastnas.report").joinpath(name).read_text(encoding="utf-8"))
