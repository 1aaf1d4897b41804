"""Supernets and derived networks, as ordinary modules."""

from fastnas.nn.auto_deeplab import AutoDeepLabNetwork
from fastnas.nn.derived import DartsNetwork
from fastnas.nn.mixed import Cell, MixedOp
from fastnas.nn.supernet import DartsSupernet

__all__ = ["AutoDeepLabNetwork", "Cell", "DartsNetwork", "DartsSupernet", "MixedOp"]
