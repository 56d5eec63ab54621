"""Groups of commands: what is typed wrong is answered with a suggestion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tokswap.errors import did_you_mean


class Group(click.Group):
    """A group that suggests a command where it has none of the name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest one."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            path = ctx.command_path.split(" ", 1)[1:]
            ctx.fail(f"there is no command `{' '.join([*path, args[0]])}`{did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)


@contextmanager
def explained() -> Iterator[None]:
    """Say where a command takes its models without a flag: some commands have --model, and others MODEL."""
    try:
        yield
    except click.NoSuchOption as error:
        context = error.ctx
        if error.option_name != "--model" or context is None:
            raise
        taken = [one.make_metavar(context) for one in context.command.params if isinstance(one, click.Argument)]
        if not taken:
            raise
        message = f"no option --model: write `{context.command_path} {' '.join(taken)}`"
        raise click.UsageError(message, context) from None
