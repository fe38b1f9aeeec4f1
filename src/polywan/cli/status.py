"""`polywan status`: what is wrong, every uplink with its state and share, or all about one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing
from polywan.api.status import UplinkStatus
from polywan.cli import options
from polywan.cli.fitting import terminal_width
from polywan.cli.oneuplink import text as in_full
from polywan.cli.overview import text
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.status.exit_code import exit_code


@click.command(name="status")
@click.argument("name", required=False, shell_complete=options.uplinks)
@options.runtime
@options.as_json
@click.option("-v", "--verbose", is_flag=True, help="Also show what is worth knowing and wrong with nothing.")
@click.option("--check", is_flag=True, help="Exit with 6 when an uplink is not up, 7 when none is.")
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    runtime_dir: Path | None,
    as_json: bool,
    verbose: bool,
    check: bool,
    watch: bool,
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
        status = client.ask(calls.STATUS, Nothing())
        uplinks = _chosen(status.uplinks, name)
        if watch and sys.stdout.isatty():
            click.clear()
        if as_json:
            click.echo(json.dumps(encode(status if name is None else uplinks[0]), indent=None if watch else 2))
        else:
            for note in status.notes if verbose else ():
                click.echo(f"note: {note}")
            click.echo(text(status, terminal_width()) if name is None else in_full(uplinks[0], status.policies))
        if not watch:
            break
        time.sleep(1)
    ctx.exit(exit_code(uplinks) if check else 0)


def _chosen(uplinks: Sequence[UplinkStatus], name: str | None) -> Sequence[UplinkStatus]:
    """Return all uplinks, or the one of that name.

    Raises:
        click.UsageError: there is no such uplink.
    """
    found = [uplink for uplink in uplinks if name in (None, uplink.name)]
    if name is not None and not found:
        from polywan.config.faults import shown, suggest

        hint = suggest(name, [uplink.name for uplink in uplinks])
        raise click.UsageError(f"there is no uplink {shown(name)}; {hint}" if hint else "there are no uplinks yet")
    return found
