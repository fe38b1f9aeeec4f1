"""`polywan top`: the state of every uplink on one screen, second by second."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.status import Status
from polywan.cli import drop_output, options
from polywan.client import Client
from polywan.client import runtime_dir as resolve


@click.command(name="top")
@options.runtime
def command(runtime_dir: Path | None) -> None:
    """Show on one screen what is wrong, every uplink with its traffic of the last minute, and connections.

    Drawn every second, and at once when something changes. The h key lists all keys: q quits, s sorts, / filters
    connections, w says why the selected one takes its uplink, Enter shows all about the selected uplink.

    Colours are left out where NO_COLOR is set, and other characters than ASCII where the locale has none.
    On a terminal that cannot be drawn on, use `polywan status --watch`.

    \b
    Examples:
      polywan top
      ssh -t box polywan top
    """
    from polywan.top.terminal import refusal

    if why := refusal(os.environ, terminal=sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(why)
    directory = resolve(runtime_dir)
    show(directory, Client(directory).ask(calls.STATUS, Nothing()))


def show(directory: Path, status: Status) -> None:
    """Show it until the user has seen enough; a signal that ends it is what ends the program.

    Args:
        directory: the daemon's runtime directory.
        status: for the first picture.
    """
    from polywan.top.display import Display, speaks_utf8
    from polywan.top.run import watch
    from polywan.top.terminal import Ended

    display = Display(utf8=speaks_utf8(os.environ), colours=not os.environ.get("NO_COLOR"))
    try:
        watch(directory, status, display, sys.stdout.fileno())
    except Ended as end:
        drop_output()
        if end.number not in (0, signal.SIGINT):
            # Its sender learns that it was what ended the program.
            signal.signal(end.number, signal.SIG_DFL)
            signal.raise_signal(end.number)
