"""The oracle: a cell in plain PyTorch, the shortest code that is obviously right.

It runs in any dtype, on any device, and can be differentiated any number of times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnas.ops.candidates import Candidate, Depthwise, Reduce, Resize, Stage
from fastnas.ops.spec import Norm, Spec


def cell(
    spec: Spec, inputs: Sequence[Tensor], alpha: Tensor, params: Sequence[Tensor], running: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """y = concat of the output states, each Σ over its edges and their candidates of α·o(x).

    Args:
        inputs: the given states, each (N, C, H, W).
        alpha: (spec.alphas,), the weights after softmax.
        params: shapes as `spec.parameter_shapes`.
        running: mean and variance, each (C,), of every norm that uses running statistics.

    Returns:
        y: (N, Σ C of the outputs, H', W').
        statistics: (2, Σ C of the norms that use the batch's), the batch's means and biased variances.
    """
    norms = _Norms(spec.norms, iter(running))
    states: dict[int, Tensor] = dict(enumerate(inputs))
    sizes = spec.sizes([(t.shape[2], t.shape[3]) for t in inputs])
    for edge, entry, first in zip(spec.edges, spec.first_alpha, spec.first_parameter, strict=True):
        given = iter(params[first:])
        for position, kind in enumerate(edge.kinds):
            out = _apply(kind, states[edge.source], edge.stride, sizes[edge.target], given, norms)
            out = alpha[entry + position] * out if edge.searched else out
            states[edge.target] = states[edge.target] + out if edge.target in states else out
    return torch.cat([states[i] for i in spec.outputs], 1), norms.statistics(inputs[0])


class _Norms:
    """Batch norms in the order in which they are met; collects the batch's statistics."""

    def __init__(self, norms: Sequence[Norm], running: Iterator[Tensor]) -> None:
        self._norms = iter(norms)
        self._running = running
        self._batch: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, given: Iterator[Tensor]) -> Tensor:
        norm = next(self._norms)
        gamma, beta = (next(given), next(given)) if norm.affine else (None, None)
        if not norm.batch:
            return F.batch_norm(x, next(self._running), next(self._running), gamma, beta, False, 0.0, norm.eps)
        self._batch.append((x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3), correction=0)))
        return F.batch_norm(x, None, None, gamma, beta, True, 0.0, norm.eps)

    def statistics(self, like: Tensor) -> Tensor:
        if not self._batch:
            return like.new_empty((2, 0))
        return torch.stack([torch.cat(rows) for rows in zip(*self._batch, strict=True)])


def _apply(
    kind: Candidate, x: Tensor, stride: int, size: tuple[int, int], given: Iterator[Tensor], norms: _Norms
) -> Tensor:
    if kind.pool == "max":
        return norms(F.max_pool2d(x, 3, stride, 1), given)
    if kind.pool == "avg":
        return norms(F.avg_pool2d(x, 3, stride, 1, count_include_pad=False), given)
    if kind.identity:
        return x
    if not kind.stages:
        return torch.zeros_like(x[:, :, ::stride, ::stride])
    for stage in kind.stages:
        if isinstance(stage, Resize):
            x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        x = norms(_convolve(stage, F.relu(x), stride, given), given)
        stride = 1
    return x


def _convolve(stage: Stage, x: Tensor, stride: int, given: Iterator[Tensor]) -> Tensor:
    if isinstance(stage, Reduce):
        odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        shifted = (F.pad(x, odd) if any(odd) else x)[:, :, 1:, 1:]
        return torch.cat([F.conv2d(x, next(given), stride=2), F.conv2d(shifted, next(given), stride=2)], 1)
    if isinstance(stage, Depthwise):
        padding = stage.dilation * (stage.kernel // 2)
        x = F.conv2d(x, next(given), None, stride, padding, stage.dilation, groups=x.shape[1])
    return F.conv2d(x, next(given))
