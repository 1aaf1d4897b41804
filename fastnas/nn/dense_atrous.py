"""Dense atrous candidates while searching: PyTorch's own convolutions and batch norms, α folded into the latter.

Liu et al., "Auto-DeepLab", CVPR 2019, §3.1, have full convolutions of rate 2 where DARTS has depthwise ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastnas.nn.fused import blend

RATE = 2


def atrous_candidate(channels: int, kernel: int) -> nn.Module:
    """ReLU, dense convolution of rate 2, batch norm without γ and β: the module that holds a candidate's parameters."""
    conv = nn.Conv2d(channels, channels, kernel, padding=RATE * (kernel // 2), dilation=RATE, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=False))


class DenseAtrous:
    """The dense candidates of all edges that leave one state, added to what their targets have so far.

    The edges' convolutions of one size are one convolution, and the norm that follows it has α as its γ. The
    convolutions' outputs are saved for backward in "fast", and computed again in "lean".

    Args:
        edges: for every edge its candidates, made by `atrous_candidate`, of the same kernels for all.
        memory: "fast" or "lean".
        repeats: how many times a training step updates the running statistics.
    """

    def __init__(self, edges: Sequence[Sequence[nn.Module]], memory: str, repeats: int = 1) -> None:
        self._run: Callable[..., Tensor] = _again if memory == "lean" else _once
        self._repeats = repeats
        kernels = [cast("Sequence[nn.Sequential]", kernel) for kernel in zip(*edges, strict=True)]
        self._convs = [[cast("nn.Conv2d", op[1]) for op in kernel] for kernel in kernels]
        self._norms = [[cast("nn.BatchNorm2d", op[2]) for op in kernel] for kernel in kernels]

    def __call__(self, x: Tensor, sums: Tensor | None, alpha: Tensor) -> Tensor:
        """`sums` + Σ α·o(x) over an edge's candidates, in x's dtype, also under autocast.

        Args:
            x: (N, C, H, W).
            sums: (N, edges·C, H, W), None for zeros.
            alpha: (edges, kernels), after softmax.

        Raises:
            ValueError: some norms would use running statistics and others the batch's, or they differ in ε.
        """
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self(x, sums, alpha)
        settings = {(n.training or not n.track_running_stats, n.eps) for norms in self._norms for n in norms}
        if len(settings) > 1:
            raise ValueError("the norms of dense atrous candidates must all have the same mode and the same eps")
        batch, eps = settings.pop()
        for convs, norms, column in zip(self._convs, self._norms, alpha.unbind(1), strict=True):
            gamma = column.repeat_interleave(x.shape[1])
            statistics = [torch.zeros_like(gamma.detach()) for _ in range(2)] if batch else _running(norms)
            term = self._run(_term, x, gamma, *statistics, batch, eps, *(conv.weight for conv in convs))
            sums = term if sums is None else sums + term
            if batch and norms[0].track_running_stats:
                self._update(norms, statistics)
        return cast("Tensor", sums)

    def _update(self, norms: list[nn.BatchNorm2d], statistics: Sequence[Tensor]) -> None:
        mean, variance = statistics
        rows = torch.stack([mean, variance / 2])  # `blend` doubles it: of two values it is the biased one
        for _ in range(self._repeats):
            blend(norms, rows, [2] * len(norms))


def _once(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return function(*arguments)


def _again(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Saves the arguments alone: the function is called again in backward."""
    return cast("Tensor", checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False))


def _term(
    x: Tensor, gamma: Tensor, mean: Tensor, variance: Tensor, batch: bool, eps: float, *weights: Tensor
) -> Tensor:
    """Convolution and norm of a kernel, all edges; with `batch` the batch's mean and unbiased variance are written."""
    weight = torch.cat(weights).to(x.dtype)
    u = F.conv2d(F.relu(x), weight, padding=RATE * (weight.shape[-1] // 2), dilation=RATE)
    return F.batch_norm(u, mean, variance, gamma, None, batch, 1.0, eps)


def _running(norms: Sequence[nn.BatchNorm2d]) -> list[Tensor]:
    buffers = [norm._buffers for norm in norms]
    return [torch.cat([cast("Tensor", own[name]) for own in buffers]) for name in ("running_mean", "running_var")]
