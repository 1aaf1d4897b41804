"""Names and colours of the classes of known data sets, and what the numbers in their label files stand for."""

from __future__ import annotations

import colorsys

import torch
from torch import Tensor

Colour = tuple[int, int, int]

# SegNet's eleven classes of CamVid (Badrinarayanan et al., PAMI 2017), in the order of its label files.
CAMVID: dict[str, Colour] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "cyclist": (0, 128, 192),
}
CAMVID_VOID = 11

# Cityscapes' nineteen training classes (Cordts et al., CVPR 2016), as in the official table of labels.
CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
# The label id, as in files labelIds.png, of each training class; the other ids below 34 are void.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_LABELS = 34


def distinct_colours(count: int) -> Tensor:
    """Colours for classes that come without: (count, 3), uint8; hues a golden section apart, in three brightnesses."""
    hues = [(0.61803398875 * i) % 1 for i in range(count)]
    colours = [colorsys.hsv_to_rgb(hue, 0.75, (1.0, 0.75, 0.5)[i % 3]) for i, hue in enumerate(hues)]
    return torch.tensor(colours).view(-1, 3).mul(255).round().to(torch.uint8)
