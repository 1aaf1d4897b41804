"""fastnas: differentiable architecture search on fused kernels."""

__version__ = "0.1.0"
