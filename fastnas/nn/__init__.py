"""Supernets and derived networks, as ordinary modules."""

from fastnas.nn.auto_deeplab import AutoDeepLabNetwork
from fastnas.nn.auto_deeplab_supernet import AutoDeepLabSupernet
from fastnas.nn.derived import DartsNetwork
from fastnas.nn.mixed import Cell, MixedOp
from fastnas.nn.supernet import DartsSupernet
from fastnas.nn.trellis import TrellisCell

__all__ = [
    "AutoDeepLabNetwork",
    "AutoDeepLabSupernet",
    "Cell",
    "DartsNetwork",
    "DartsSupernet",
    "MixedOp",
    "TrellisCell",
]
