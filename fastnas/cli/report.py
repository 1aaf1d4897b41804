"""fastnas report."""

from __future__ import annotations

from pathlib import Path

import click

from fastnas.cli.text import results
from fastnas.errors import UserError


@click.command(short_help="Write a page about runs that opens in a browser.")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, metavar="RUN...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page.  [default: report.html in the folder of the run]"
)
@click.option("--measure", is_flag=True, help="Also time steps of the search networks, fused and in plain PyTorch.")
def report(runs: tuple[Path, ...], out: Path | None, measure: bool) -> None:
    """Write one HTML page about the runs in RUN...: curves, α over time, cells, memory and time, configuration.

    The page is one file and loads nothing: it opens from disk, and can be sent as it is.

    \b
      fastnas report runs/digits
      fastnas report runs/digits runs/other --out report.html
    """
    if not runs:
        raise UserError("RUN is missing; expected the folder of a search or of a training")
    if out is None and len(runs) > 1:
        raise UserError("--out is missing; it names the page for several runs")
    out = out or runs[0] / "report.html"
    if out.is_dir():
        raise UserError(f"--out is {out}, a folder; expected the name of a page, such as {out / 'report.html'}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.parent}")

    from fastnas.report import write_report

    write_report(runs, out, measure)
    results([("Report", out)])
