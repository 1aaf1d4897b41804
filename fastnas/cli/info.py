"""fastnas info."""

from __future__ import annotations

import platform

import click

from fastnas import __version__
from fastnas.cli.text import next_command


@click.command(short_help="Show versions, threads, and which backends can run.")
def info() -> None:
    """Show versions, threads, and which backends of the fused operators can run here, or why not."""
    import torch

    from fastnas.ops import backends

    rows = [
        ("fastnas", __version__),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("PyTorch", torch.__version__),
        ("threads", str(torch.get_num_threads())),
    ]
    for backend in backends():
        state = "can run" if backend.available else "cannot run"
        rows.append((f"backend {backend.name}", f"{state}: {backend.reason}"))
    for name, value in rows:
        click.echo(f"{name:<22}{value}")
    next_command("fastnas", "search", "--help")
