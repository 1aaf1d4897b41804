"""Errors of the whole network in float32 against float64, stock PyTorch's and ours."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from contestants import Setting, make
from torch import Tensor, nn


def errors(
    setting: Setting, seeds: int, names: tuple[str, ...] = ("stock", "fastnas fast", "fastnas lean")
) -> dict[str, dict[str, float]]:
    """Largest error, relative to the largest value, over seeds: of the logits and of each group of gradients."""
    worst: dict[str, dict[str, float]] = {}
    for seed in range(seeds):
        stock = make("stock", setting, seed)
        exact = _results(copy.deepcopy(stock.network).double(), stock.images.double(), stock.labels)
        for name in names:
            contestant = make(name, setting, seed)
            for quantity, tensors in _results(contestant.network, contestant.images, contestant.labels).items():
                row = worst.setdefault(quantity, dict.fromkeys(names, 0.0))
                row[name] = max(row[name], *(_error(a, b) for a, b in zip(tensors, exact[quantity], strict=True)))
    return worst


def _results(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, list[Tensor]]:
    images = images.clone().requires_grad_()
    logits = network(images)
    weights, arch = network.weight_parameters(), network.arch_parameters()
    grads = torch.autograd.grad(F.cross_entropy(logits, labels), [images, *arch, *weights])
    return {"logits": [logits], "∂image": [grads[0]], "∂α": list(grads[1:3]), "∂weights": list(grads[3:])}


def _error(actual: Tensor, exact: Tensor) -> float:
    return ((actual.double() - exact).abs().max() / exact.abs().max()).item()
