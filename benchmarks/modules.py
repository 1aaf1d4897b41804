"""Stock and fused modules with the same weights, for the benchmarks of a single edge or cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from contestants import FAST, LEAN, MEMORY, STOCK, STOCK_LAST
from torch import Tensor, nn

NAMES = (STOCK, STOCK_LAST, FAST, LEAN)
SHAPES = ((16, 32), (32, 16), (64, 8))  # channels, and height and width, of the three stages of DARTS on 32x32 images
BATCH = 16
ROUNDS = {"rounds": 15, "warmup_rounds": 5}


def forward_backward(
    name: str, stock: nn.Module, fused: Callable[[str], nn.Module], images: Sequence[Tensor], alphas: Tensor
) -> Callable[[], None]:
    """Forward and backward of the module `name`, with gradients of images, alphas and weights.

    Args:
        name: one of NAMES.
        stock: gives the weights.
        fused: makes the fused module for a memory mode.
        images: inputs, each (N, C, H, W).
        alphas: the candidates' weights, which become leaves as the images do.
    """
    module = fused(MEMORY[name]) if name in MEMORY else stock
    module.load_state_dict(stock.state_dict())
    layout = torch.channels_last if name == STOCK_LAST else torch.contiguous_format
    module = module.to(memory_format=layout)
    leaves = [t.contiguous(memory_format=layout).requires_grad_() for t in images]
    leaves.append(alphas.requires_grad_())
    grad = torch.randn_like(module(*leaves))

    def step() -> None:
        for t in (*leaves, *module.parameters()):
            t.grad = None
        module(*leaves).backward(grad)

    return step
