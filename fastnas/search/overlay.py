"""Predictions as pictures: an image under the colours of its labels, beside the same under those of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fastnas.data.segmentation import IGNORE, SegmentationData
from fastnas.search.files import write_atomically

_OPACITY = 0.6
_MARGIN = 12
_TITLE, _ROW, _SWATCH = 22, 22, 14  # heights of a title and of a line of the legend, side of a colour's square
_GAP = 6
_INK, _PAPER, _VOID = "#222222", "#ffffff", (0, 0, 0)
_LEAST_WIDTH = 320  # of the picture, for the names of the classes


def write_overlay(path: Path, data: SegmentationData, image: Tensor, labels: Tensor, prediction: Tensor) -> None:
    """Draws one image twice, coloured by its labels and by a prediction, over a legend; as PNG.

    Args:
        path: of the picture, in an existing folder.
        data: has the names and colours of the classes.
        image: (3, H, W), uint8.
        labels, prediction: (H, W), any integers; IGNORE is shown black.

    Raises:
        UserError: it cannot be written; what was there before is unchanged.
    """
    prediction = prediction.cpu()
    panels = {"labels": blend(image, labels, data.palette), "prediction": blend(image, prediction, data.palette)}
    seen = np.union1d(labels.numpy(), prediction.numpy()).tolist()
    legend = [(data.classes[i], tuple(data.palette[i].tolist())) for i in seen if i != IGNORE]
    if IGNORE in seen:
        legend.append(("void", _VOID))
    buffer = BytesIO()
    _compose(panels, legend).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())


def blend(image: Tensor, classes: Tensor, palette: Tensor) -> Tensor:
    """The image (3, H, W) in uint8 under the colours (K, 3) of its pixels' classes (H, W), black where IGNORE."""
    colours = torch.tensor(_VOID, dtype=torch.uint8).repeat(IGNORE + 1, 1)
    colours[: len(palette)] = palette
    colour = colours[classes.long()].permute(2, 0, 1)
    return torch.lerp(image.float(), colour.float(), _OPACITY).round().to(torch.uint8)


def _compose(panels: dict[str, Tensor], legend: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    height, width = next(iter(panels.values())).shape[1:]
    total = max(_MARGIN + len(panels) * (width + _MARGIN), _LEAST_WIDTH)
    font = ImageFont.load_default(13)
    places, rows = _arrange([font.getlength(name) for name, _ in legend], total - 2 * _MARGIN)
    top = _MARGIN + _TITLE + height + _MARGIN
    picture = Image.new("RGB", (total, top + rows * _ROW + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(picture)
    for i, (title, panel) in enumerate(panels.items()):
        left = _MARGIN + i * (width + _MARGIN)
        draw.text((left, _MARGIN), title, _INK, font)
        picture.paste(Image.fromarray(panel.permute(1, 2, 0).contiguous().numpy()), (left, _MARGIN + _TITLE))
    for (name, colour), (x, row) in zip(legend, places, strict=True):
        corner, upper = _MARGIN + x, top + row * _ROW
        draw.rectangle((corner, upper, corner + _SWATCH, upper + _SWATCH), colour, _INK)
        draw.text((corner + _SWATCH + _GAP, upper + _SWATCH / 2), name, _INK, font, "lm")
    return picture


def _arrange(widths: Sequence[float], total: float) -> tuple[list[tuple[float, int]], int]:
    """Where each entry of the legend begins, from the left and by line, and the number of lines."""
    places: list[tuple[float, int]] = []
    x, row = 0.0, 0
    for width in widths:
        needed = _SWATCH + _GAP + width
        if x > 0 and x + needed > total:
            x, row = 0.0, row + 1
        places.append((x, row))
        x += needed + 2 * _MARGIN
    return places, row + 1
