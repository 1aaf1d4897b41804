"""Supernets and derived networks, as ordinary modules."""

from fastnas.nn.derived import DartsNetwork
from fastnas.nn.mixed import Cell, MixedOp
from fastnas.nn.supernet import DartsSupernet

__all__ = ["Cell", "DartsNetwork", "DartsSupernet", "MixedOp"]
