"""Supernets and derived networks, as ordinary modules."""

from fastnas.nn.auto_deeplab import AutoDeepLabNetwork
from fastnas.nn.auto_deeplab_supernet import AutoDeepLabSupernet
from fastnas.nn.count import Counts, count
from fastnas.nn.derived import DartsNetwork
from fastnas.nn.gdas import GdasSupernet
from fastnas.nn.mixed import Cell, MixedOp
from fastnas.nn.pc_darts import PCDartsSupernet
from fastnas.nn.supernet import DartsSupernet
from fastnas.nn.trellis import TrellisCell

__all__ = [
    "AutoDeepLabNetwork",
    "AutoDeepLabSupernet",
    "Cell",
    "Counts",
    "DartsNetwork",
    "DartsSupernet",
    "GdasSupernet",
    "MixedOp",
    "PCDartsSupernet",
    "TrellisCell",
    "count",
]
