"""What every GPU backend's gate has in common: figures of compiled kernels, their table in docs/, and the check.

A gate calls `main` with what compiles its kernels, which writes docs/gpu-kernels-<backend>.json and .md, or with
`--check` fails where a figure is worse than the committed one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOT = ("moments", "apply", "grad_sums", "stage_back", "source_back")
"""Kernels that may not spill."""


Wanted = Callable[[str, int], bool]
"""Whether an instance is to be compiled for a chip."""


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel.

    Attributes:
        backend: "triton" or "cuda".
        kernel: its name in docs/gpu.md.
        instance: dtype and sizes that it is compiled for.
        arch: 60 for sm_60.
        registers: of a thread.
        spill_bytes: of a thread, the stack that ptxas needed.
        shared_bytes: of a block.
        occupancy: the share of a multiprocessor's warps that fit (NVIDIA, CUDA C++ Programming Guide, table of
            compute capabilities).
    """

    backend: str
    kernel: str
    instance: str
    arch: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    occupancy: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is called in a table."""
        return self.kernel, self.instance, self.arch


@dataclass(frozen=True)
class Chip:
    """Limits of a multiprocessor; `reserved` bytes of shared memory are the system's in each block."""

    warps: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int
    reserved: int = 0


KIB = 1024
CHIPS = {
    60: Chip(64, 32, 64 * KIB, 48 * KIB),
    70: Chip(64, 32, 96 * KIB, 96 * KIB),
    75: Chip(32, 16, 64 * KIB, 64 * KIB),
    80: Chip(64, 32, 164 * KIB, 163 * KIB, KIB),
    90: Chip(64, 32, 228 * KIB, 227 * KIB, KIB),
    100: Chip(64, 32, 228 * KIB, 227 * KIB, KIB),
}
REGISTERS = 65536  # of a multiprocessor, handed to warps in units of 256
WARP = 32


def occupancy(arch: int, threads: int, registers: int, shared_bytes: int) -> float:
    """The share of a multiprocessor's warps that blocks of this size can fill."""
    chip = CHIPS[arch]
    warps = -(-threads // WARP)
    warp_registers = -(-registers * WARP // 256) * 256
    shared = -(-(shared_bytes + chip.reserved) // 256) * 256
    by_registers = REGISTERS // warp_registers // warps
    by_shared = chip.shared_bytes // shared if shared else chip.blocks
    return round(min(chip.blocks, chip.warps // warps, by_registers, by_shared) * warps / chip.warps, 4)


def faults(kernels: Iterable[Kernel]) -> list[str]:
    """What no kernel may have: spills where it is hot, more shared memory than the chip, too many registers to run."""
    result = []
    for k in kernels:
        if k.spill_bytes and k.kernel in HOT:
            result.append(f"{_name(k)}: spills {k.spill_bytes} bytes a thread; a hot kernel must not")
        if k.shared_bytes > CHIPS[k.arch].block_shared_bytes:
            result.append(f"{_name(k)}: {k.shared_bytes} bytes of shared memory, a block may have at most "
                          f"{CHIPS[k.arch].block_shared_bytes}")  # fmt: skip
        if k.occupancy == 0:
            result.append(f"{_name(k)}: no block fits on a multiprocessor")
    return result


def worse(now: Iterable[Kernel], committed: Iterable[Kernel]) -> list[str]:
    """Where a figure has grown, or a kernel has come or gone."""
    before = {k.key: k for k in committed}
    result = []
    for k in now:
        old = before.pop(k.key, None)
        if old is None:
            result.append(f"{_name(k)}: not in the committed table")
            continue
        for figure in ("registers", "spill_bytes", "shared_bytes"):
            was, is_now = getattr(old, figure), getattr(k, figure)
            if is_now > was:
                result.append(f"{_name(k)}: {figure} {is_now}, committed {was}")
    return result + [f"{_name(k)}: in the committed table, no longer compiled" for k in before.values()]


def one_chip(committed: Iterable[Kernel]) -> Wanted:
    """Of a table's instances each for one of its chips, these in turn; and whatever the table does not have."""
    chips: dict[str, set[int]] = {}
    for k in committed:
        chips.setdefault(k.instance, set()).add(k.arch)
    chosen = {name: sorted(chips[name])[i % len(chips[name])] for i, name in enumerate(sorted(chips))}
    return lambda instance, arch: chosen.get(instance, arch) == arch


def read(backend: str) -> list[Kernel]:
    """The committed figures."""
    return [Kernel(**row) for row in json.loads(_path(backend, "json").read_text())]


def write(backend: str, kernels: list[Kernel], note: str) -> None:
    """The figures as JSON, and as a table with one row for all chips."""
    rows = ",\n".join(" " + json.dumps(asdict(k)) for k in kernels)
    _path(backend, "json").write_text(f"[\n{rows}\n]\n")
    _path(backend, "md").write_text(_markdown(backend, kernels, note))


def _markdown(backend: str, kernels: list[Kernel], note: str) -> str:
    archs = sorted({k.arch for k in kernels})
    rows: dict[tuple[str, str], dict[int, Kernel]] = {}
    for k in kernels:
        rows.setdefault((k.kernel, k.instance), {})[k.arch] = k
    spills = sum(k.spill_bytes > 0 for k in kernels)
    lines = [
        f"# What the {backend.capitalize() if backend != 'cuda' else 'CUDA'} kernels compile to",
        "",
        f"{note} Each cell: registers a thread / shared memory a block in bytes / theoretical occupancy. "
        f"{len(kernels)} kernels, of which {spills or 'none'} {'spill' if spills != 1 else 'spills'}"
        f"{'; +n s: n bytes of spills a thread' if spills else ''}. Compiled, not "
        "measured: none of this has run on a GPU for this table.",
        "",
        "| kernel | instance | " + " | ".join(f"sm_{arch}" for arch in archs) + " |",
        "|---" * (len(archs) + 2) + "|",
    ]
    for (kernel, instance), cells in rows.items():
        lines.append(f"| {kernel} | {instance} | " + " | ".join(_cell(cells.get(arch)) for arch in archs) + " |")
    return "\n".join(lines) + "\n"


def _cell(k: Kernel | None) -> str:
    if k is None:
        return "–"
    spills = f" +{k.spill_bytes} s" if k.spill_bytes else ""
    return f"{k.registers}{spills} / {k.shared_bytes} / {k.occupancy:.0%}"


def _name(k: Kernel) -> str:
    return f"{k.backend} {k.kernel} ({k.instance}, sm_{k.arch})"


def _path(backend: str, suffix: str) -> Path:
    return DOCS / f"gpu-kernels-{backend}.{suffix}"


def main(backend: str, compile_all: Callable[[Wanted], list[Kernel]], note: str) -> None:
    """Compile, then write the table, or check it; ends the process with 1 where a gate fails.

    Args:
        backend: as of Kernel.
        compile_all: compiles all that is wanted.
        note: what the table begins with.
    """
    parser = argparse.ArgumentParser(description=f"Compile the {backend} kernels ahead of time and look at the result.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="fail where a figure is worse than the committed table's")
    mode.add_argument("--check-one-chip", action="store_true", help="the same, every instance for one chip, in turn")
    options = parser.parse_args()
    committed = read(backend) if options.check or options.check_one_chip else []
    wanted = one_chip(committed) if options.check_one_chip else lambda instance, arch: True
    kernels = compile_all(wanted)
    problems = faults(kernels)
    if committed:
        problems += worse(kernels, [k for k in committed if wanted(k.instance, k.arch)])
    else:
        write(backend, kernels, note)
    print(*problems, f"{len(kernels)} kernels compiled, {len(problems)} problems", sep="\n")
    sys.exit(1 if problems else 0)
