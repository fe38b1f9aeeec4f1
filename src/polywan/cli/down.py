"""`polywan down`: leave the kernel as found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing
from polywan.api.running import Removed
from polywan.cli import options
from polywan.client import SENSELESS, Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import BusyError, ControlError
from polywan.core.words import counted

DOWN_TIMEOUT: Final = 60.0
"""Seconds: large sets take a while to go, and nobody else can remove them meanwhile."""


@click.command(name="down")
@options.runtime
@options.state
@options.as_json
@click.pass_context
def command(ctx: click.Context, runtime_dir: Path | None, state_dir: Path, as_json: bool) -> None:
    """Remove every rule, route and table of polywan, restore the old values of settings, and end the daemon.

    Also works without a running daemon. What other programs own stays as it is.

    \b
    Examples:
      polywan down
      polywan down --runtime-dir /tmp/pw --state-dir /tmp/pw-state
    """
    from polywan.kernel import cgroups

    directory = resolve(runtime_dir)
    try:
        report = Client(directory, DOWN_TIMEOUT).ask(calls.DOWN, Nothing())
    except ControlError as error:
        # A daemon that answers has ended, or has not let itself be asked: its own words say which.
        if error.status == SENSELESS:
            # It is done, whatever the answer should have said.
            cgroups.remove()
        if error.status:
            raise
        report = _without_daemon(directory, state_dir, error)
    # Not the daemon's work: under systemd it may not change control groups.
    cgroups.remove()
    if as_json:
        click.echo(json.dumps(encode(report), indent=2))
    else:
        click.echo(f"removed or restored {counted(report.removed, 'object')}")
        for text in report.failed:
            click.echo(f"refused by the kernel: {text}", err=True)
        if report.unrestored:
            click.echo("left as they are, because their old values, which memory.json had, are unknown:", err=True)
            for text in report.unrestored:
                click.echo(f"  {text}", err=True)
        for text in report.problems:
            click.echo(text, err=True)
    ctx.exit(1 if report.failed or report.unrestored or report.problems else 0)


def _without_daemon(directory: Path, state_dir: Path, silent: ControlError) -> Removed:
    from polywan.daemon.offline import remove_without_daemon

    try:
        return remove_without_daemon(directory, state_dir)
    except BusyError as error:
        raise BusyError(f"{silent}\n{error}\nEnd a daemon that does not answer with `kill PID`.") from error
