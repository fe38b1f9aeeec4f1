"""`polywan status`: what is wrong, every uplink with its state and share, or all about one."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from polywan.cli import options
from polywan.cli.fitting import terminal_width
from polywan.cli.oneuplink import text as in_full
from polywan.cli.overview import text
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.status.exit_code import exit_code


@click.command(name="status")
@click.argument("name", required=False)
@options.runtime
@options.as_json
@click.option("--check", is_flag=True, help="Exit with 6 when an uplink is not up, 7 when none is.")
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@click.pass_context
def command(
    ctx: click.Context, name: str | None, runtime_dir: Path | None, as_json: bool, check: bool, watch: bool
) -> None:
    """Show what is wrong, one line each, then every uplink: state, since when, share of new connections, traffic.

    With NAME, show everything about that uplink: each family and target, address, gateway and outages.

    SHARE is the share of new connections in policy `default`, which takes all of them unless rules say otherwise
    (the heading is then OF DEFAULT). Where the families differ, each has a column. Rates are in bits per second.
    What does not fit the terminal is left out or cut.

    \b
    Examples:
      polywan status
      polywan status fibre
      polywan status --json | jq '.uplinks[] | {name, state}'
      polywan status --check && echo all up
    """
    client = Client(resolve(runtime_dir))
    while True:
        status = _shown(client.status(), name)
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(_printed(status, name, as_json=as_json, watch=watch))
        if not watch:
            break
        time.sleep(1)
    ctx.exit(exit_code(status) if check else 0)


def _shown(status: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return the document, or one with this uplink alone.

    Raises:
        click.UsageError: there is no such uplink.
    """
    if name is None:
        return status
    found = [uplink for uplink in status["uplinks"] if uplink["name"] == name]
    if not found:
        from polywan.config.faults import shown, suggest

        hint = suggest(name, [uplink["name"] for uplink in status["uplinks"]])
        raise click.UsageError(f"there is no uplink {shown(name)}; {hint}" if hint else "there are no uplinks yet")
    return {**status, "uplinks": found}


def _printed(status: dict[str, Any], name: str | None, *, as_json: bool, watch: bool) -> str:
    if as_json:
        return json.dumps(status if name is None else status["uplinks"][0], indent=None if watch else 2)
    return text(status, terminal_width()) if name is None else in_full(status["uplinks"][0], status["policies"])
