"""`polywan lab`: see what polywan does before you own a second link."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from polywan.lab.show import Options

_EXAMPLES = """\b
Examples:
  polywan lab                     three uplinks, a minute of accidents, a verdict
  polywan lab --uplinks 53        the same on 53 uplinks, with timings
  polywan lab --hold              keep the network and look around in it
  polywan lab --json > run.json   the report as one document
"""


@click.command(name="lab", epilog=_EXAMPLES)
@click.option("--uplinks", type=click.IntRange(2, 62), default=3, show_default=True, help="Number of uplinks.")
@click.option(
    "--connections",
    type=click.IntRange(12, 20000),
    default=300,
    show_default=True,
    help="Number of connections to share out.",
)
@click.option("--hold", is_flag=True, help="Keep the network after the run, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON; progress goes to stderr.")
@click.option(
    "--keep-log", type=click.Path(dir_okay=False, path_type=Path), help="Write the daemon's log to this file."
)
def command(uplinks: int, connections: int, *, hold: bool, as_json: bool, keep_log: Path | None) -> None:
    """Try polywan without hardware: a client, a router, providers and servers in private namespaces.

    Starts the real daemon, sends real connections through it, and breaks things: a cable, a provider,
    the daemon itself. Ends with a list of all promises, kept or broken, and the measured numbers.
    Needs no root where the system allows user namespaces; leaves nothing behind.

    Exits with 0 when every promise was kept, otherwise with 1.
    """
    from polywan.lab import show

    options: Options = show.Options(
        uplinks=uplinks, connections=connections, hold=hold, as_json=as_json, keep_log=keep_log
    )
    sys.exit(show.run(options))
