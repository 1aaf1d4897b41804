"""fastnas bench."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnas.cli.text import next_command, results
from fastnas.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from fastnas.bench import Peaks, Row

# Channels, and height and width, of the three stages of the search network on 32×32 images.
_SHAPES = ((16, 32), (32, 16), (64, 8))
_GOOD, _POOR = 0.7, 0.3  # shares of a peak from which on a row is green, and below which it is yellow


@click.group(short_help="Measure the kernels on this machine.")
def bench() -> None:
    """Measure the kernels on this machine."""


@bench.command(short_help="Compare every kernel with the processor's peaks.")
@click.option("--channels", type=click.IntRange(min=2), multiple=True, help="C; repeat it, with --size, for more.")
@click.option("--size", type=click.IntRange(min=1), multiple=True, help="Height and width that go with --channels.")
@click.option(
    "--stride", type=click.IntRange(1, 2), default=1, show_default=True, help="Of the kernels; cells have stride 1."
)
@click.option("--batch", type=click.IntRange(min=2), default=16, show_default=True, help="Images of a whole cell.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For whole cells; kernels run on one."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.2,
    show_default=True,
    help="Time for each figure.",
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write every figure to this file, too.")
def roofline(
    channels: tuple[int, ...],
    size: tuple[int, ...],
    stride: int,
    batch: int,
    threads: int,
    seconds: float,
    path: Path | None,
) -> None:
    """Compare every kernel, and whole cells, with the processor's peaks.

    The peaks are measured first: chains of multiply-adds on the widest vectors in use, and a triad in the
    second-level cache and in main memory. Kernels then run on one image that lies in the cache, cells on a batch,
    forward and backward.

    \b
      fastnas bench roofline
      fastnas bench roofline --channels 36 --size 32 --channels 72 --size 16 --json roofline.json
    """
    if len(channels) != len(size):
        raise UserError(f"--channels and --size go together, got {len(channels)} of one and {len(size)} of the other")
    if path and not path.absolute().parent.is_dir():
        raise UserError(f"--json: there is no folder {path.parent}")
    shapes = list(zip(channels, size, strict=True)) or list(_SHAPES)
    _require_compiled()

    from rich.console import Console

    from fastnas.bench import cell_rows, kernel_rows, measure_peaks

    one = measure_peaks(1, seconds)
    many = one if threads == 1 else measure_peaks(threads, seconds)
    console = Console(width=None if Console().is_terminal else 130)
    for peaks in dict.fromkeys((one, many)):
        click.echo(_peaks_text(peaks))
    rows: list[Row] = []
    for c, s in shapes:
        found = [*kernel_rows(c, s, stride, one, seconds), *cell_rows(c, s, batch, many, seconds)]
        console.print(_table(found, f"C={c}, {s}×{s}, stride {stride}"))
        rows += found
    if path:
        _save(path, [one, many], rows)
        results([("Figures", path)])
    next_command("fastnas", "bench", "roofline", "--help")


def _require_compiled() -> None:
    from fastnas.ops import backends

    cpu = next(backend for backend in backends() if backend.name == "cpu")
    if not cpu.available:
        raise UserError(f"the kernels cannot be measured: {cpu.reason}")


def _peaks_text(peaks: Peaks) -> str:
    threads = "1 thread" if peaks.threads == 1 else f"{peaks.threads} threads"
    return (
        f"peaks, {threads}: {peaks.flops / 1e9:.1f} GF/s, second-level cache {peaks.cache_bytes / 1e9:.1f} GB/s, "
        f"main memory {peaks.memory_bytes / 1e9:.1f} GB/s"
    )


def _table(rows: list[Row], title: str) -> Table:
    from rich.table import Table

    table = Table("kernel", title=title, title_justify="left")
    for heading in ("µs", "GF/s", "of peak", "GB/s", "of cache", "of memory"):
        table.add_column(heading, justify="right")
    for row in rows:
        shares = [row.flops_share, row.cache_share, row.memory_share]
        best = max(row.flops_share, row.cache_share or 0)
        flops = f"{row.flops / row.seconds / 1e9:.1f}" if row.flops else "-"
        moved = "-" if row.bytes is None else f"{row.bytes / row.seconds / 1e9:.1f}"
        of_peak, of_cache, of_memory = ("-" if not share else f"{share:.0%}" for share in shares)
        style = "green" if best >= _GOOD else "yellow" if best < _POOR else ""
        table.add_row(row.name, f"{row.seconds * 1e6:.1f}", flops, of_peak, moved, of_cache, of_memory, style=style)
    return table


def _save(path: Path, peaks: list[Peaks], rows: list[Row]) -> None:
    from fastnas import _C
    from fastnas.search.files import write_atomically

    document = {
        "vector_width": _C.vector_width(),
        "peaks": [asdict(each) for each in dict.fromkeys(peaks)],
        "rows": [_record(row) for row in rows],
    }
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())


def _record(row: Row) -> dict[str, Any]:
    record = asdict(row)
    del record["peaks"]
    shares = {"flops_share": row.flops_share, "cache_share": row.cache_share, "memory_share": row.memory_share}
    return record | {"threads": row.peaks.threads} | shares
