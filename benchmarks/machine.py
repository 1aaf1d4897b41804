"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch

from fastnas.ops import backends


def machine(threads: int) -> dict[str, str]:
    """Processor, threads, versions, backends with their vector width, and commit."""
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {_memory()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "threads": str(threads),
        "torch": f"{torch.__version__}, vector width {torch.backends.cpu.get_cpu_capability()}",
        "fastnas": "; ".join(f"{b.name}: {b.reason if b.available else f'no, {b.reason}'}" for b in backends()),
        "commit": _commit(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown, git is missing"
    return done.stdout.strip() or "unknown"
