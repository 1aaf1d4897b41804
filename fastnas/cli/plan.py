"""fastnas plan."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastnas.cli.lasting import lasting
from fastnas.cli.text import next_command, results
from fastnas.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from fastnas.plan import Row, Size

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NAMES = {name.lower(): size for name, size in _UNITS.items()}


class _Memory(click.ParamType):  # type: ignore[type-arg]  # a class of two parameters only in later versions
    """Bytes, from a number and a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", str(value).strip())
        if not match or match[2].lower() not in _NAMES or float(match[1]) == 0:
            self.fail(f"expected a positive number with a unit of {', '.join(_UNITS)}, such as 16GB, got {value!r}.")
        return int(float(match[1]) * _NAMES[match[2].lower()])


class _Crop(click.ParamType):  # type: ignore[type-arg]
    """Height and width, from one number or from two."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", str(value))
        sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if min(sides) < 1:
            self.fail(f"expected a number of pixels, or height and width as 321x641, got {value!r}.")
        return sides


@click.command(short_help="Predict the memory of a training step, before anything runs.")
@click.option(
    "--network",
    type=click.Choice(["darts", "auto-deeplab"]),
    default="darts",
    show_default=True,
    help="Whose search network.",
)
@click.option("--crop", type=_Crop(), help="Of the images; 321, or 321x641.  [default: 32, or 321 for auto-deeplab]")
@click.option("--batch", type=click.IntRange(min=1), help="Images.  [default: 64, or 2 for auto-deeplab]")
@click.option("--memory", type=_Memory(), help="Of the device, such as 16GB or 80GiB: also find what fits into it.")
@click.option("--mode", type=click.Choice(["fast", "lean"]), help="Only this memory mode.  [default: both]")
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda", "triton"]),
    default="cpu",
    show_default=True,
    help="Whose memory is planned; no GPU is needed here.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of the cpu backend.  [default: as PyTorch]")
@click.option("--channels", type=click.IntRange(min=1), help="C of darts, filters of auto-deeplab.  [default: 16, 8]")
@click.option("--layers", type=click.IntRange(min=1), help="Of the network.  [default: 8, or 12 for auto-deeplab]")
@click.option("--steps", type=click.IntRange(min=1), help="Nodes of a cell of auto-deeplab.  [default: 5]")
@click.option(
    "--atrous",
    type=click.Choice(["separable", "dense"]),
    default="separable",
    help="Atrous candidates of auto-deeplab; dense ones are not planned.",
)
@click.option("--classes", type=click.IntRange(min=1), help="That it tells apart.  [default: 10, or 19]")
@click.option(
    "--json", "path", type=click.Path(path_type=Path), help="Write every figure, in bytes, to this file, too."
)
def plan(
    network: str,
    crop: tuple[int, int] | None,
    batch: int | None,
    memory: int | None,
    mode: str | None,
    backend: str,
    threads: int | None,
    channels: int | None,
    layers: int | None,
    steps: int | None,
    atrous: str,
    classes: int | None,
    path: Path | None,
) -> None:
    """Predict the memory of a training step: forward and backward in float32, every gradient, and an optimiser's state.

    With --memory also the most images of this size and the largest square crop for this many images that fit. Stock is
    the same network in plain PyTorch.

    \b
      fastnas plan --batch 96 --memory 16GB
      fastnas plan --network auto-deeplab --crop 321 --batch 2 --memory 16GB --backend cuda
    """
    pixels = network == "auto-deeplab"
    if steps and not pixels:
        raise UserError("--steps goes with --network auto-deeplab: cells of darts have 4 nodes")
    if atrous == "dense":
        raise UserError(
            "--atrous dense cannot be planned: its convolutions are PyTorch's own, whose scratch memory is not known "
            "before they run; benchmarks/step.py --network auto-deeplab --atrous dense measures it"
        )
    if path and not path.absolute().parent.is_dir():
        raise UserError(f"--json: there is no folder {path.parent}")
    given = {"filters" if pixels else "channels": channels, "layers": layers, "steps": steps, "num_classes": classes}

    with lasting():
        import torch
        from rich.console import Console

        from fastnas.plan import MODES, Described, Size, make_plan

    try:
        described = Described(network, **{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise UserError(str(error)) from error
    size = Size(batch or (2 if pixels else 64), *(crop or ((321, 321) if pixels else (32, 32))))
    threads = threads or torch.get_num_threads()
    rows = make_plan(described, size, backend, threads, [mode] if mode else MODES, memory)
    smallest = min(rows[:-1], key=lambda row: row.step.peak)
    if memory and all(row.batch is None and row.crop is None for row in rows[:-1]):
        raise UserError(_too_small(smallest, size, memory))
    console = Console(width=None if Console().is_terminal else 140)
    console.print(_table(rows, f"{network}, {size} on {backend}", size, memory))
    if backend != "cpu":
        click.echo("A prediction from the launch plans: no GPU was asked.")
    if path:
        _save(path, rows, size, {"network": network, "backend": backend, "threads": threads, "memory": memory})
        results([("Figures", path)])
    next_command("fastnas", "search", *([network] if pixels else []), "--help")


def _too_small(row: Row, size: Size, memory: int) -> str:
    return (
        f"{_bytes(memory)} do not hold this network: {row.name} takes {_bytes(row.step.peak)} for {size}, of which "
        f"{_bytes(row.step.weights + row.step.optimizer)} are weights and optimiser, and neither one image nor a "
        "smaller crop fits"
    )


def _table(rows: list[Row], title: str, size: Size, memory: int | None) -> Table:
    from rich.table import Table

    from fastnas.plan import SMALLEST

    table = Table("bytes", title=title, title_justify="left")
    for row in rows:
        table.add_column(row.name, justify="right")
    for name in ("weights", "gradients", "optimizer", "images", "saved", "scratch", "peak"):
        table.add_row(name, *(_bytes(getattr(row.step, name)) for row in rows), style="bold" if name == "peak" else "")
    if memory:
        table.add_section()
        table.add_row(f"fits {_bytes(memory)}", *("yes" if row.step.peak <= memory else "no" for row in rows))
        table.add_row(
            f"largest batch of {size.height}×{size.width}",
            *(str(row.batch or "none") for row in rows[:-1]),
            "-",
        )
        crops = [f"{row.crop}×{row.crop}" if row.crop else f"none from {SMALLEST}×{SMALLEST} on" for row in rows[:-1]]
        table.add_row(f"largest crop, batch {size.batch}", *crops, "-")
    return table


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _save(path: Path, rows: list[Row], size: Size, about: dict[str, Any]) -> None:
    from fastnas.search.files import write_atomically

    document = about | asdict(size) | {"rows": [asdict(row) for row in rows]}
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
