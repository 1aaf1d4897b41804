"""Swaps the fused operators into models that other people wrote."""

from fastnas.swap.apply import AccelerateError, accelerate, restore
from fastnas.swap.report import Cost, Entry, Report

__all__ = ["AccelerateError", "Cost", "Entry", "Report", "accelerate", "restore"]
