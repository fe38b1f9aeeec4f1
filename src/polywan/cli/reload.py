"""`polywan reload`: put the changed configuration in force."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import ToReload
from polywan.api.running import Reloaded
from polywan.cli import options
from polywan.client import Client
from polywan.client import runtime_dir as resolve


@click.command(name="reload")
@click.option("--force", is_flag=True, help="Reload even if that cuts your ssh connection.")
@options.runtime
@options.as_json
def command(force: bool, runtime_dir: Path | None, as_json: bool) -> None:
    """Make the daemon read its configuration again, and wait until it is in force.

    Established connections stay where they are. A file with an error changes nothing, nor does one that would cut the
    ssh connection from which this is called: `polywan try` brings the old configuration back by itself.

    \b
    Examples:
      polywan reload
      polywan reload --json
      polywan reload --force
    """
    from polywan.trial import session

    connection = session.here()
    asked = ToReload(
        by=session.user(),
        session=None if connection is None else str(connection),
        force="true" if force else None,
    )
    done = Client(resolve(runtime_dir)).ask(calls.RELOAD, asked)
    if as_json:
        click.echo(json.dumps(encode(done), indent=2))
    else:
        click.echo(text(done))


def text(done: Reloaded) -> str:
    """Return what a reload has put in force, for people."""
    what = "; ".join(done.changes)
    if not done.changed:
        return f"in force: {what}; nothing to change in the kernel" if what else "nothing to change"
    ended = f"generation {done.generation}, {done.ms} ms"
    return f"in force: {what}; {ended}" if what else f"in force: {ended}"
