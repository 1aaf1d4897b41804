"""Trained networks as files that need no fastnas (docs/result.md)."""

from fastnas.export.files import export
from fastnas.export.onnx import to_onnx
from fastnas.export.plain import plain_source

__all__ = ["export", "plain_source", "to_onnx"]
