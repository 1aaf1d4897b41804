"""Runs as one page that opens from disk (docs/report.md)."""

from fastnas.report.page import write_report

__all__ = ["write_report"]
