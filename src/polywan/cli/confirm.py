"""`polywan confirm`: keep the configuration on trial."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.cli import options


@click.command(name="confirm")
@click.option("--force", is_flag=True, help="Confirm also what another user tries.")
@click.option("--here", is_flag=True, help="Confirm from an ssh session that is older than the change, or may be.")
@options.config
@options.as_json
def command(force: bool, here: bool, config_path: Path, as_json: bool) -> None:
    """Keep the configuration that `polywan try` has put in force.

    Over ssh it has to come from a session that was opened after the change: that a new one works is what it proves.

    \b
    Examples:
      polywan confirm
      polywan confirm --here
    """
    from polywan.trial import finishing

    record = finishing.confirm(config_path, force=force, here=here)
    if as_json:
        click.echo(json.dumps({"id": record.id, "outcome": "confirmed"}, indent=2))
    else:
        click.echo(f"confirmed: what {record.user} tried is in force for good")
