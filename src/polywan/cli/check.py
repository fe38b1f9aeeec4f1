"""`polywan check`: is the configuration good?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.cli import options
from polywan.config import load
from polywan.core.errors import ConfigError


@click.command(name="check")
@options.config
@options.as_json
@click.pass_context
def command(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Check the configuration: every problem at once, with file, line and key. Nothing is changed.

    \b
    Examples:
      polywan check
      polywan check --config ./polywan.toml --json
    """
    try:
        config = load(config_path)
    except ConfigError as error:
        if as_json:
            problems = [{"where": p.where, "key": p.key, "message": p.message, "hint": p.hint} for p in error.problems]
            click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
        else:
            click.echo(str(error), err=True)
            count = len(error.problems)
            click.echo(f"{count} problem{'s' if count != 1 else ''}; nothing was changed", err=True)
        ctx.exit(3)
    policies = config.resolved_policies()
    if as_json:
        click.echo(json.dumps({"ok": True, "uplinks": list(config.uplinks), "policies": list(policies)}, indent=2))
        return
    click.echo(
        f"{config_path}: good: uplinks {len(config.uplinks)}, policies {len(policies)}, rules {len(config.rules)}"
    )
