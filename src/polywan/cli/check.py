"""`polywan check`: is the configuration good?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from polywan.cli import options
from polywan.config import load_with_warnings
from polywan.core.errors import ConfigError, Problem


@click.command(name="check")
@options.config
@options.as_json
@click.pass_context
def command(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Check the configuration: every problem at once, with file, line and key. Nothing is changed.

    Warns of rules that can never match; warnings do not change the exit code.

    \b
    Examples:
      polywan check
      polywan check --config ./polywan.toml --json
    """
    try:
        loaded = load_with_warnings(config_path)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": _listed(error.problems)}, indent=2))
        else:
            click.echo(str(error), err=True)
            count = len(error.problems)
            click.echo(f"{count} problem{'s' if count != 1 else ''}; nothing was changed", err=True)
        ctx.exit(3)
    config = loaded.config
    policies = config.resolved_policies()
    if as_json:
        facts = {"ok": True, "uplinks": list(config.uplinks), "policies": list(policies)}
        click.echo(json.dumps({**facts, "warnings": _listed(loaded.warnings)}, indent=2))
        return
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"{config_path}: good: uplinks {len(config.uplinks)}, policies {len(policies)}, rules {len(config.rules)}"
    )


def _listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"where": p.where, "key": p.key, "message": p.message, "hint": p.hint} for p in problems]
