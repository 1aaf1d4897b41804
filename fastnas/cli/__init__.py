"""The command line. Importing it does not import PyTorch; each command does when it runs."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

import click

from fastnas import __version__
from fastnas.errors import DamageWarning, InterruptError, LostError, UserError
from fastnas.search.launch import launched

_PATIENCE = 2.0  # seconds for torchrun to see which process was lost: it reports the one that ends first

# Each is a module of this name, in the order in which they are used.
_COMMANDS = (
    "search",
    "decode",
    "retrain",
    "repeat",
    "evaluate",
    "export",
    "plot",
    "report",
    "plan",
    "accelerate",
    "info",
    "bench",
)


class _Commands(click.Group):
    """Turns what the user can put right into one sentence and an exit code: 2, or 130 after Ctrl-C."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command when it is asked for: no other's options are worked out."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"fastnas.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; of several processes the first alone prints how it goes."""
        try:
            with ExitStack() as stack:
                stack.enter_context(_sentences())
                if not launched().first:
                    stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8"))))
                return super().invoke(ctx)
        except UserError as error:
            _say(str(error))
            if isinstance(error, LostError):
                time.sleep(_PATIENCE)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            _say(error.format_message())
            ctx.exit(UserError.exit_code)
        except KeyboardInterrupt:
            _say("interrupted")
            ctx.exit(InterruptError.exit_code)


@contextmanager
def _sentences() -> Iterator[None]:
    """Shows a `DamageWarning` as its sentence alone, every time."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if not issubclass(category, DamageWarning):
                show(message, category, *where, **options)
            elif launched().first:
                click.echo(f"fastnas: {message}", err=True)

        warnings.showwarning = say
        warnings.simplefilter("always", DamageWarning)
        yield


def _say(sentence: str) -> None:
    launch = launched()
    who = "fastnas" if launch.count == 1 else f"fastnas, process {launch.rank} of {launch.count}"
    click.echo(f"{who}: {sentence}", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="fastnas %(version)s")
def main() -> None:
    """Differentiable architecture search on fused kernels.

    A search finds the wiring of a small convolutional network for your images; the found network is then
    trained from scratch. To try it on images that are built in:

    \b
      fastnas search --data digits --out runs/digits --channels 8 --layers 4 --epochs 5
      fastnas plot runs/digits
      fastnas retrain runs/digits --out runs/digits-net --channels 16 --layers 4 --epochs 10
    """
