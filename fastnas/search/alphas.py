"""What α says: how decided it is, which genotype it stands for, and whether skips have taken over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastnas.genotype import AutoDeepLabGenotype, CellGenotype, Genotype, decode_auto_deeplab, decode_darts, load
from fastnas.genotype.file import parse
from fastnas.nn.supernet import STEPS
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.config import GENOTYPE

if TYPE_CHECKING:
    from fastnas.nn import DartsSupernet

SKIP = "skip_connect"
CELLS = ("normal", "reduce")

ADVICE = (
    "Skip connections are taking over the cell, the collapse that first-order DARTS is known for: "
    "such networks usually retrain badly. Stop earlier (DARTS+, Liang et al., 2019), or take an earlier epoch by "
    "fastnas decode --epoch; lower --alpha-lr; or regularise the weights more, by --weight-decay or --cutout "
    "(Zela et al., ICLR 2020)."
)


def alpha_row(network: DartsSupernet) -> dict[str, Any]:
    """What the history keeps of α: its values and what they say.

    `strength` are the tables that decoding compares, where they are not the softmax of α.
    """
    alphas, strengths = (network.alphas_normal, network.alphas_reduce), network.strengths()
    row: dict[str, Any] = {"alpha": dict(zip(CELLS, map(_short, alphas), strict=True))}
    if not all(torch.equal(s, alpha.detach().softmax(-1)) for s, alpha in zip(strengths, alphas, strict=True)):
        row["strength"] = dict(zip(CELLS, map(_short, strengths), strict=True))
    skips = skips_dominate(alphas[0], decode(row).normal)
    return {"alpha_entropy": sum(map(entropy, alphas)) / len(alphas), "skips_dominate": skips, **row}


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


def strengths(row: dict[str, Any]) -> dict[str, Tensor]:
    """How strong each candidate of each edge was at a history row, (edges, candidates), for each kind of cell."""
    if "strength" in row:
        return {cell: torch.tensor(table) for cell, table in row["strength"].items()}
    return {cell: torch.tensor(alpha).softmax(-1) for cell, alpha in row["alpha"].items()}


def decode(row: dict[str, Any]) -> Genotype:
    """The genotype of a history row, the same as that of the supernet at that epoch, or the one that it holds."""
    if "genotype" in row:
        return parse(row["genotype"], Genotype)
    normal, reduce = (strengths(row)[cell].tolist() for cell in CELLS)
    return decode_darts(normal, reduce, DARTS_CANDIDATES, STEPS)


def kept_row(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row whose genotype a run stands for: the last one, or the one that it names (`kept_epoch`)."""
    last = history[-1]
    return history[last["kept_epoch"] - 1] if "kept_epoch" in last else last


def decode_trellis(row: dict[str, Any]) -> AutoDeepLabGenotype:
    """The genotype of a history row of Auto-DeepLab, the same as that of the supernet at that epoch."""
    alpha = torch.tensor(row["alpha"]["cell"]).softmax(-1).tolist()
    steps = (math.isqrt(9 + 8 * len(alpha)) - 3) // 2  # Σ (2 + step) edges
    return decode_auto_deeplab(alpha, row["beta"], DARTS_CANDIDATES, steps)


def decode_row(row: dict[str, Any]) -> Genotype | AutoDeepLabGenotype:
    """The genotype of a history row of either search."""
    return decode_trellis(row) if "beta" in row else decode(row)


def found_genotype(folder: Path, command: str, history: Sequence[dict[str, Any]]) -> Genotype | AutoDeepLabGenotype:
    """The genotype that the run of `command` in `folder` stands for: what it found so far, or what it trains.

    Raises:
        GenotypeError: the genotype file of a training cannot be read.
    """
    row = kept_row(history)
    if row.keys() & {"alpha", "genotype"}:
        return decode_row(row)
    return load(folder / GENOTYPE, AutoDeepLabGenotype if command.endswith("auto-deeplab") else Genotype)


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
