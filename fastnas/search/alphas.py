"""What α says: how decided it is, which genotype it stands for, and whether skips have taken over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastnas.genotype import AutoDeepLabGenotype, CellGenotype, Genotype, decode_auto_deeplab, decode_darts
from fastnas.nn.supernet import STEPS
from fastnas.ops import DARTS_CANDIDATES

SKIP = "skip_connect"

ADVICE = (
    "Skip connections are taking over the cell, the collapse that first-order DARTS is known for: "
    "such networks usually retrain badly. Stop earlier (DARTS+, Liang et al., 2019), or take an earlier epoch by "
    "fastnas decode --epoch; lower --alpha-lr; or regularise the weights more, by --weight-decay or --cutout "
    "(Zela et al., ICLR 2020)."
)


def alpha_row(alphas: Sequence[Tensor]) -> dict[str, Any]:
    """What the history keeps of α, of normal and reduction cells: its values and what they say."""
    normal, reduce = (_short(alpha) for alpha in alphas)
    row = {"alpha_entropy": sum(entropy(alpha) for alpha in alphas) / len(alphas)}
    alpha = {"normal": normal, "reduce": reduce}
    return {**row, "skips_dominate": skips_dominate(alphas[0], decode(alpha).normal), "alpha": alpha}


def trellis_row(alphas: Tensor, betas: Tensor) -> dict[str, Any]:
    """What the history keeps of α (edges, 8) and β (layers, 4, 3): their values and what they say."""
    row: dict[str, Any] = {"alpha": {"cell": _short(alphas)}, "beta": [_short(layer) for layer in betas]}
    genotype = decode_trellis(row)
    return {
        "alpha_entropy": entropy(alphas),
        "skips_dominate": skips_dominate(alphas, genotype.cell),
        "path": list(genotype.path),
        **row,
    }


def entropy(alpha: Tensor) -> float:
    """Mean entropy of softmax(α), from 0 (decided) to 1 (all candidates alike); α is (edges, candidates)."""
    log_weights = alpha.detach().double().log_softmax(-1)
    per_edge = -(log_weights.exp() * log_weights).sum(-1)
    return float(per_edge.mean()) / math.log(alpha.shape[-1])


def decode(alpha: dict[str, list[list[float]]]) -> Genotype:
    """The genotype of a history row's α, the same as that of the supernet at that epoch."""
    normal, reduce = (torch.tensor(alpha[cell]).softmax(-1).tolist() for cell in ("normal", "reduce"))
    return decode_darts(normal, reduce, DARTS_CANDIDATES, STEPS)


def decode_trellis(row: dict[str, Any]) -> AutoDeepLabGenotype:
    """The genotype of a history row of Auto-DeepLab, the same as that of the supernet at that epoch."""
    alpha = torch.tensor(row["alpha"]["cell"]).softmax(-1).tolist()
    steps = (math.isqrt(9 + 8 * len(alpha)) - 3) // 2  # Σ (2 + step) edges
    return decode_auto_deeplab(alpha, row["beta"], DARTS_CANDIDATES, steps)


def decode_row(row: dict[str, Any]) -> Genotype | AutoDeepLabGenotype:
    """The genotype of a history row of either search."""
    return decode_trellis(row) if "beta" in row else decode(row["alpha"])


def skips_dominate(alpha: Tensor, cell: CellGenotype) -> bool:
    """Whether skips are more than half of the cell's operations, or lead on more than half its edges.

    As in decoding, the candidate `none` does not count (DARTS, §2.4).
    """
    kinds = [kind for kind in DARTS_CANDIDATES if kind != "none"]
    columns = [DARTS_CANDIDATES.index(kind) for kind in kinds]
    strongest = alpha.detach()[:, columns].argmax(-1)
    leading = int((strongest == kinds.index(SKIP)).sum())
    operations = [name for node in cell.nodes for name, _ in node]
    return 2 * leading > len(alpha) or 2 * operations.count(SKIP) > len(operations)


def _short(alpha: Tensor) -> list[list[float]]:
    # Nine digits bring every fp32 number back exactly.
    return [[float(f"{value:.9g}") for value in edge] for edge in alpha.detach().tolist()]
