"""What a search costs a GPU, counted and predicted: fastnas by its launch plans, stock PyTorch operator by operator.

    python benchmarks/gpu_cost.py
    python benchmarks/gpu_cost.py --search 321 --batch 2    # Auto-DeepLab's whole search network
    python benchmarks/gpu_cost.py --batch 64 --json gpu-cost.json --picture docs/images/gpu-cost

Nothing runs on a GPU, and none is needed. docs/gpu.md says what is counted and how times are predicted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import stock
import stock_trellis
import torch
from eager_cost import EagerCost
from gpu_picture import FAST, LEAN, STOCK, draw
from machine import machine
from rich.console import Console
from rich.table import Table

from fastnas.bench.gpu_cost import Cost, call_costs
from fastnas.nn import AutoDeepLabSupernet, Cell, DartsSupernet, TrellisCell
from fastnas.ops.cuda import CudaKernels

LAUNCH_SECONDS = 3e-6  # a stream takes up kernels no faster than about this


@dataclass(frozen=True)
class Device:
    """Published peaks: bytes a second of main memory, FLOPs a second in float32 without tensor cores."""

    name: str
    bytes: float
    flops: float

    def seconds(self, costs: Sequence[Cost]) -> float:
        """Predicted: each kernel is bound by its bytes, its FLOPs, or its launch."""
        return sum(max(c.bytes / self.bytes, c.flops / self.flops, LAUNCH_SECONDS) for c in costs)


DEVICES = (
    Device("P100 16 GB", 732e9, 9.3e12),  # NVIDIA, Tesla P100 PCIe data sheet
    Device("V100", 900e9, 15.7e12),  # V100 SXM2 data sheet
    Device("A100 40 GB", 1555e9, 19.5e12),  # A100 data sheet
    Device("H100", 3350e9, 67e12),  # H100 SXM data sheet
)
Counts = dict[str, list[Cost]]


def cell_counts(channels: int, size: int, batch: int, nodes: int = stock.NODES) -> Counts:
    """Forward and backward of one normal cell, all gradients."""
    width = nodes * channels
    arguments = (width, width, channels, False, False)
    with torch.device("meta"):
        plain = stock.Cell(*arguments, nodes=nodes)
        inputs = [torch.empty(batch, width, size, size, requires_grad=True) for _ in range(2)]
        weights = torch.empty(len(plain._ops), stock.CANDIDATES, requires_grad=True)
    with EagerCost() as counted:
        out = plain(*inputs, weights)
        out.backward(torch.empty_like(out))
    cell = Cell(*arguments, nodes)
    return {STOCK: counted.costs} | {
        name: _cell_costs(cell, batch, [(size, size)] * 2, memory) for name, memory in ((FAST, "fast"), (LEAN, "lean"))
    }


def trellis_counts(filters: int, crop: int, batch: int, steps: int = 5) -> Counts:
    """Forward and backward of one layer of Auto-DeepLab's search network, a cell for each of its four scales."""
    sides = [crop // (4 << level) + 1 for level in range(stock_trellis.SCALES)]
    widths = [filters * steps << level for level in range(stock_trellis.SCALES)]
    counts: Counts = {STOCK: [], FAST: [], LEAN: []}
    for level, width in enumerate(widths):
        sources = [s if 0 <= s < len(widths) else None for s in (level - 1, level, level + 1)]
        ways = [None if s is None else widths[s] for s in sources]
        given = [level, *(s for s in sources if s is not None)]
        with torch.device("meta"):
            plain = stock_trellis.Cell([width, *ways], filters << level, steps)
            cell = TrellisCell(width, ways, filters << level, steps)
            tensors = {s: torch.empty(batch, widths[s], sides[s], sides[s], requires_grad=True) for s in given}
            weights = torch.empty(len(plain._ops), stock.CANDIDATES, requires_grad=True)
            betas = torch.empty(len(given) - 1, requires_grad=True)
        with EagerCost() as counted:
            ends = [None if s is None else tensors[s] for s in sources]
            made = plain(tensors[level], *ends, (sides[level], sides[level]), weights)
            out = sum(beta * way for beta, way in zip(betas, made, strict=True))
            out.backward(torch.empty_like(out))
        counts[STOCK] += counted.costs
        for name, memory in ((FAST, "fast"), (LEAN, "lean")):
            counts[name] += _cell_costs(cell, batch, [(sides[s], sides[s]) for s in given], memory)
    return counts


def step_counts(channels: int, layers: int, size: int, batch: int) -> Counts:
    """Forward and backward of the whole DARTS search network, all gradients, with stem, classifier and loss."""
    with torch.device("meta"):
        plain = stock.Network(channels, layers)
        images, labels = torch.empty(batch, 3, size, size), torch.empty(batch, dtype=torch.long)
    with EagerCost() as whole:
        torch.nn.functional.cross_entropy(plain(images), labels).backward()
    counts = {STOCK: whole.costs}
    around = _around_cells(plain, images, labels)
    for name, memory in ((FAST, "fast"), (LEAN, "lean")):
        network = DartsSupernet(channels, layers)
        costs, before, previous = list(around), (size, size), (size, size)
        for cell in network.cells:
            assert isinstance(cell, Cell)
            costs += _cell_costs(cell, batch, [before, previous], memory)
            before, previous = previous, cell.spec.sizes([before, previous])[cell.spec.outputs[0]]
        counts[name] = costs
    return counts


def _cell_costs(cell: Cell | TrellisCell, batch: int, sizes: list[tuple[int, int]], memory: str) -> list[Cost]:
    return call_costs(cell.spec, batch, sizes, memory, CudaKernels.tiling)


def _around_cells(plain: stock.Network, images: torch.Tensor, labels: torch.Tensor) -> list[Cost]:
    """Everything but the cells."""
    with EagerCost() as counted:
        stem = plain.stem(images)
        for alphas in (plain.alphas_normal, plain.alphas_reduce):
            torch.nn.functional.softmax(alphas, -1).sum().backward()
        stem.backward(torch.empty_like(stem))
        last = torch.empty(
            len(images), plain.classifier.in_features, *(n // 4 for n in images.shape[2:]), device="meta",
            requires_grad=True,
        )  # fmt: skip
        logits = plain.classifier(plain.global_pooling(last).flatten(1))
        torch.nn.functional.cross_entropy(logits, labels).backward()
    return counted.costs


def supernet_counts(crop: int, batch: int, classes: int = 19) -> dict[str, list[Cost]]:
    """Forward and backward of Auto-DeepLab's search network (F=8, B=5, L=12), all gradients, by memory mode."""
    with torch.device("meta"):
        network = AutoDeepLabSupernet(num_classes=classes)
        images = torch.empty(batch, 3, crop, crop)
        labels = torch.empty(batch, crop, crop, dtype=torch.long)
    with EagerCost() as around:
        stem = network.stem2(network.stem1(network.stem0(images)))
        stem.backward(torch.empty_like(stem))
        sizes = [tuple(stem.shape[2:])]
        for _ in range(1, stock_trellis.SCALES):
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        widths = [head.conv11[0].in_channels for head in network.heads]
        ends = [
            torch.empty(batch, width, *size, device="meta", requires_grad=True)
            for width, size in zip(widths, sizes, strict=True)
        ]
        logits = [stock_trellis.resize(head(x), (crop, crop)) for head, x in zip(network.heads, ends, strict=True)]
        torch.nn.functional.cross_entropy(sum(logits), labels).backward()
    counts = {}
    for name, memory in ((FAST, "fast"), (LEAN, "lean")):
        counts[name] = list(around.costs)
        cells, reached = iter(network.cells), network.reached
        for layer, after in enumerate(reached[1:]):
            for level in range(after):
                cell = next(cells)
                sources = [s for s in (level - 1, level, level + 1) if 0 <= s < reached[layer]]
                given = [*([level] if cell.prev_prev else []), *sources]
                counts[name] += call_costs(cell.spec, batch, [sizes[s] for s in given], memory, CudaKernels.tiling)
    return counts


def search_table(counts: dict[str, list[Cost]], crop: int, batch: int) -> Table:
    """Predicted times of a step, and of the paper's search of 40 epochs on half of Cityscapes' 2,975 training images.

    A step of the weights and, in the second half of the epochs, one of α and β are each taken as forward and backward
    with all gradients. Reading images and the optimisers are left out.
    """
    steps = 2975 // 2 // batch * (40 + 20)
    title = f"Auto-DeepLab's search network, crop {crop}, batch {batch}, by CUDA: predicted"
    result = Table("network", *(device.name for device in DEVICES), title=title, title_justify="left")
    for name, costs in counts.items():
        times = [device.seconds(costs) for device in DEVICES]
        result.add_row(f"{name}, a step", *(f"{t * 1e3:,.0f} ms" for t in times))
        result.add_row(f"… {steps:,} steps", *(f"{t * steps / 3600:.1f} h" for t in times))
    return result


def table(title: str, counts: Counts) -> Table:
    """Totals, each with how many times as much stock needs, and predicted times."""
    result = Table("quantity", "network", "total", "stock / this", title=title, title_justify="left")
    totals = {
        "kernel launches": ({name: len(costs) for name, costs in counts.items()}, 1, ""),
        "DRAM traffic": ({name: sum(c.bytes for c in costs) for name, costs in counts.items()}, 1e9, " GB"),
        "arithmetic": ({name: sum(c.flops for c in costs) for name, costs in counts.items()}, 1e9, " GFLOP"),
    }
    for device in DEVICES:
        times = {name: device.seconds(costs) for name, costs in counts.items()}
        totals[f"predicted time, {device.name}"] = (times, 1e-3, " ms")
    for quantity, (values, unit, suffix) in totals.items():
        for row, (name, value) in enumerate(values.items()):
            amount = f"{value / unit:,.0f}" if unit == 1 else f"{value / unit:.2f}"
            result.add_row("" if row else quantity, name, f"{amount}{suffix}", f"{values[STOCK] / value:.2f}x")
        result.add_section()
    return result


def main() -> None:
    """Count, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64, help="of DARTS (default 64); that of --search, too")
    parser.add_argument("--search", type=int, metavar="CROP", help="only steps of Auto-DeepLab's search network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every kernel's count to FILE")
    parser.add_argument("--picture", type=Path, metavar="STEM", help="draw STEM.svg and STEM.png")
    parser.add_argument("--quick", action="store_true", help="a tiny network: shows that everything runs")
    words = parser.parse_args()
    if words.search:
        Console().print(search_table(supernet_counts(words.search, words.batch), words.search, words.batch))
        return
    channels, layers, size, batch = (4, 3, 8, 2) if words.quick else (16, 8, 32, words.batch)
    console = Console()
    found = {
        f"DARTS, one search network, C={channels}, L={layers}, {size}×{size}, batch {batch}": step_counts(
            channels, layers, size, batch
        ),
        f"DARTS, a normal cell, C={channels}, {size}×{size}, batch {batch}": cell_counts(channels, size, batch),
    }
    for scale in () if words.quick else (4, 8, 16, 32):
        width, side = 2 * scale, 320 // scale + 1
        title = f"Auto-DeepLab, a cell at scale {scale}, C={width}, {side}×{side}, 5 nodes, batch 2"
        found[title] = cell_counts(width, side, 2, nodes=5)
    filters, crop = (
        (
            4,
            64,
        )
        if words.quick
        else (8, 321)
    )
    title = f"Auto-DeepLab, a layer of the search network, F={filters}, crop {crop}, batch 2"
    found[title] = trellis_counts(filters, crop, 2, steps=1 if words.quick else 5)
    console.print("Counted and predicted; nothing here was measured on a GPU.")
    for title, counts in found.items():
        console.print(table(title, counts))
    if words.json:
        results = {
            t: {name: [asdict(c) for c in costs] for name, costs in counts.items()} for t, counts in found.items()
        }
        words.json.write_text(json.dumps({"machine": machine(torch.get_num_threads()), "counts": results}))
    if words.picture:
        title, counts = next(iter(found.items()))
        for path in draw(title, counts, DEVICES, words.picture):
            console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
