"""Second-order DARTS (Liu et al., ICLR 2019, equations 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fastnas.search.config import SearchConfig
from fastnas.search.strategies.darts import Darts

if TYPE_CHECKING:
    from fastnas.search.bilevel import Batch, BilevelSearch
    from fastnas.search.loop import Score


class SecondOrderConfig(SearchConfig):
    """Defaults as for the first order (appendix A.1)."""

    strategy: Literal["darts-2nd"] = "darts-2nd"
    epsilon: float = Field(
        0.01, gt=0, description="Step of the finite differences, times the norm of the gradient along which it goes."
    )


class SecondOrderDarts(Darts[SecondOrderConfig]):
    """α descends the loss on its half of the images at the weights that one step on theirs would give.

    w' = w - ξ·(μ·m + ∇w L_train(w, α) + λ·w) is that step, with its momentum and decay, without clipping; ξ is the
    learning rate. The gradient is ∇α L_val(w', α) - ξ·(∇α L_train(w⁺, α) - ∇α L_train(w⁻, α)) / 2ε (equations 7 and
    8), with v = ∇w' L_val(w', α), ε = epsilon/‖v‖ and w± = w ± ε·v.
    """

    name = "darts-2nd"
    summary = "second-order DARTS by finite differences, some three times the work (the same paper)"
    options = SecondOrderConfig

    def alpha_gradient(self, search: BilevelSearch, val: Batch, train: Batch, score: Score) -> None:
        """As above; the weights end as they were, bit by bit."""
        import torch

        from fastnas.search.bilevel import shifted
        from fastnas.search.processes import mean

        weights, alphas, rate = search.weights, search.alphas, search.descent.lr
        step = search.descent.direction(mean(torch.autograd.grad(search.loss(train), weights)))
        with shifted(weights, step, -rate):
            loss = search.alpha_loss(val, score)
            gradients = mean(torch.autograd.grad(loss, [*alphas, *weights]))
        of_alphas, vector = gradients[: len(alphas)], gradients[len(alphas) :]
        epsilon = self.config.epsilon / float(torch.cat([v.flatten() for v in vector]).norm())
        sides = []
        for distance in (epsilon, -epsilon):
            with shifted(weights, vector, distance):
                sides.append(torch.autograd.grad(search.loss(train), alphas))
        for alpha, gradient, above, below in zip(alphas, of_alphas, *sides, strict=True):
            alpha.grad = gradient - rate * (above - below) / (2 * epsilon)
