"""How close the kernels come to what the processor can do."""

from fastnas.bench.roofline import Peaks, Row, cell_rows, kernel_rows, measure_peaks
from fastnas.bench.work import cell_multiply_adds, network_multiply_adds

__all__ = [
    "Peaks",
    "Row",
    "cell_multiply_adds",
    "cell_rows",
    "kernel_rows",
    "measure_peaks",
    "network_multiply_adds",
]
