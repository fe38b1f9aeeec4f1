"""Groups of verbs that know what was meant by one that they do not have."""

from __future__ import annotations

import click


class Suggesting(click.Group):
    """Answers an unknown verb with the one that it resembles."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; see `click.Group`."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from polywan.config.faults import shown, suggest

            hint = suggest(args[0], self.list_commands(ctx))
            raise click.UsageError(f"there is no verb {shown(args[0])}; {hint}", ctx)
        return super().resolve_command(ctx, args)
