"""A command for several search methods: the first word names the method, without one it is DARTS."""

from __future__ import annotations

import click

DEFAULT = "darts"


class Methods(click.Group):
    """`fastnas search --data …` is `fastnas search darts --data …`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The default first."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the default method where none is named."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)
