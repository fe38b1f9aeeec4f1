"""`polywan status`: what is wrong, every uplink with its state and share, or all about one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing
from polywan.api.status import Status, UplinkStatus
from polywan.cli import options
from polywan.cli.fitting import terminal_width
from polywan.cli.oneuplink import text as in_full
from polywan.cli.overview import text
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import ControlError
from polywan.core.status.exit_code import exit_code


@click.command(name="status")
@click.argument("name", required=False, shell_complete=options.uplinks)
@options.runtime
@options.as_json
@click.option("-v", "--verbose", is_flag=True, help="Also show what is worth knowing and wrong with nothing.")
@click.option("--check", is_flag=True, help="Exit with 6 when an uplink is not up, 7 when none is.")
@click.option("--watch", is_flag=True, help="Refresh at every change, and every second, until Ctrl-C.")
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
    What does not fit the terminal is left out or cut. With --watch and --json, every change is a line.

    \b
    Examples:
      polywan status
      polywan status fibre
      polywan status --json | jq '.uplinks[] | {name, state}'
      polywan status --check && echo all up
    """
    client = Client(resolve(runtime_dir))
    if watch:
        for status in _statuses(client, only_changes=as_json):
            uplinks = _chosen(status.uplinks, name)
            if sys.stdout.isatty():
                click.clear()
            _show(status, uplinks, name, as_json=as_json, verbose=verbose, indent=None)
            sys.stdout.flush()
    status = client.ask(calls.STATUS, Nothing())
    uplinks = _chosen(status.uplinks, name)
    _show(status, uplinks, name, as_json=as_json, verbose=verbose, indent=2)
    ctx.exit(exit_code(uplinks) if check else 0)


def _show(
    status: Status,
    uplinks: Sequence[UplinkStatus],
    name: str | None,
    *,
    as_json: bool,
    verbose: bool,
    indent: int | None,
) -> None:
    if as_json:
        click.echo(json.dumps(encode(status if name is None else uplinks[0]), indent=indent))
        return
    for note in status.notes if verbose else ():
        click.echo(f"note: {note}")
    click.echo(text(status, terminal_width()) if name is None else in_full(uplinks[0], status.policies))


def _statuses(client: Client, *, only_changes: bool) -> Iterator[Status]:
    """Yield the status whenever it is another one; with `only_changes` not when only what is measured is.

    Raises:
        ControlError: the daemon cannot be reached, or is gone.
    """
    from polywan.api.views.stream import Change, StreamSample
    from polywan.core.views.changes import changed, sampled

    status: Status | None = None
    for event in client.follow(calls.LIVE, Nothing()):
        if isinstance(event, Status):
            status = event
        elif status is not None and isinstance(event, Change):
            status = changed(status, event)
        elif status is not None and isinstance(event, StreamSample):
            status = sampled(status, event)
            if only_changes:
                continue
        else:
            continue
        yield status
    raise ControlError("the daemon has ended the connection: it was stopped, or this terminal was too slow")


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
