"""Errors of the whole network in float32 against float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from contestants import STOCK, Contestant, Sizes, make
from torch import Tensor

GRADIENTS = ("input", "weights", "alphas")


def errors(names: Sequence[str], setting: Sizes, seeds: int, threads: int) -> dict[str, dict[str, float]]:
    """For logits and each group of gradients, the largest error of each contestant over tensors and seeds.

    An error is relative to the tensor's largest value, or to a millionth of its group's where that is larger: the exact
    gradient of a bias before a batch norm is zero. NaN shows as NaN.
    """
    torch.set_num_threads(threads)
    found: dict[str, dict[str, list[Tensor]]] = {}
    for seed in range(seeds):
        exact = _results(make(STOCK, setting, seed), torch.float64)
        for name in names:
            for quantity, tensors in _results(make(name, setting, seed), torch.float32).items():
                least = 1e-6 * torch.stack([t.abs().max() for t in exact[quantity]]).max()
                errors_of_seed = [_error(a, b, least) for a, b in zip(tensors, exact[quantity], strict=True)]
                found.setdefault(quantity, {}).setdefault(name, []).extend(errors_of_seed)
    return {q: {name: torch.stack(all_).max().item() for name, all_ in row.items()} for q, row in found.items()}


def _results(contestant: Contestant, dtype: torch.dtype) -> dict[str, list[Tensor]]:
    network, (images, labels) = contestant.network.to(dtype), contestant.training
    images = images.to(dtype).requires_grad_()
    logits = network(images)
    groups = [[images], network.weight_parameters(), network.arch_parameters()]
    flat = torch.autograd.grad(F.cross_entropy(logits, labels), [t for group in groups for t in group])
    gradients = iter(flat)
    named = {
        f"gradient of {name}": [next(gradients) for _ in group] for name, group in zip(GRADIENTS, groups, strict=True)
    }
    return {"logits": [logits.detach()], **named}


def _error(actual: Tensor, exact: Tensor, least: Tensor) -> Tensor:
    return (actual.double() - exact).abs().max() / torch.maximum(exact.abs().max(), least)
