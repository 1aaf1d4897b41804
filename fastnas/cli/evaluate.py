"""fastnas evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from fastnas.cli.text import results, size_text


@click.command(short_help="Measure a trained segmentation network, and draw what it sees.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which to load."
)
@click.option(
    "--scales",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    default=(1.0,),
    show_default=True,
    help="Size at which an image is seen, as a factor; give it several times for the mean over scales.",
)
@click.option("--mirror", is_flag=True, help="See every image left to right, too.")
@click.option("--pictures", type=click.IntRange(min=0), default=4, show_default=True, help="Images to draw.")
@click.option("--device", help="What it computes on: auto, cpu, cuda or cuda:1; without it that of the training.")
def evaluate(
    run: Path, weights: str, scales: tuple[float, ...], mirror: bool, pictures: int, device: str | None
) -> None:
    """Measure the segmentation network trained in RUN on its validation images.

    Prints the intersection over union of every class and their mean, writes them to evaluation.json, and draws
    labels and predictions over some images.

    \b
      fastnas evaluate runs/camvid-net
      fastnas evaluate runs/camvid-net --scales 0.75 --scales 1 --scales 1.25 --mirror
    """
    from rich.console import Console
    from rich.table import Table

    from fastnas.search.evaluation import evaluate as measure
    from fastnas.search.run import EVALUATION

    found = measure(run, weights, scales, mirror, pictures, device)
    table = Table("class", "IOU")
    for name, iou in found["iou"].items():
        table.add_row(name, "-" if iou is None else f"{iou:.1%}")
    table.add_section()
    table.add_row("mean", f"{found['miou']:.1%}")
    table.add_row("pixels right", f"{found['pixel_accuracy']:.1%}")
    Console().print(table)
    click.echo(f"The network has {size_text(found)}.")
    results([("Figures", run / EVALUATION), *(("Picture", Path(path)) for path in found["pictures"])])
