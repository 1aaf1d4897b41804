"""Architectures that were published."""

from __future__ import annotations

from fastnas.genotype.genotype import INPUTS, AutoDeepLabGenotype, CellGenotype, Genotype


def _cell(*edges: tuple[str, int]) -> CellGenotype:
    nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
    return CellGenotype(nodes, tuple(range(INPUTS, INPUTS + len(nodes))))


# The cells that Liu et al. found and published with "DARTS: Differentiable Architecture Search" (ICLR 2019): V1 by
# first-order search, V2 by second-order search.
DARTS_V1 = Genotype(
    normal=_cell(
        ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
        ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2),
    ),
    reduce=_cell(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0),
    ),
)  # fmt: skip
DARTS_V2 = Genotype(
    normal=_cell(
        ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2),
    ),
    reduce=_cell(
        ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
        ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1),
    ),
)  # fmt: skip

# What Liu et al. found and published with "Auto-DeepLab: Hierarchical Neural Architecture Search for Semantic Image
# Segmentation" (CVPR 2019, figure 3).
AUTO_DEEPLAB = AutoDeepLabGenotype(
    cell=_cell(
        ("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
        ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("sep_conv_5x5", 4), ("sep_conv_5x5", 2),
        ("sep_conv_5x5", 3), ("dil_conv_5x5", 5),
    ),
    path=(0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1),
)  # fmt: skip
