"""Options that several verbs share, each with one default."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

DEFAULT_CONFIG = Path("/etc/polywan/polywan.toml")
DEFAULT_STATE = Path("/var/lib/polywan")

path = click.Path(path_type=Path, readable=False)
"""A path that is not looked at here: whoever opens it says what is wrong in better words than click."""

config = click.option(
    "--config",
    "-c",
    "config_path",
    type=path,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration file; conf.d/*.toml beside it is also read.",
)
runtime = click.option(
    "--runtime-dir",
    type=path,
    envvar="POLYWAN_RUNTIME_DIR",
    default=None,
    help="Directory in which the daemon listens.  [default: $POLYWAN_RUNTIME_DIR or /run/polywan]",
)
state = click.option(
    "--state-dir", type=path, default=DEFAULT_STATE, show_default=True, help="Directory for what the daemon remembers."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

COMPLETION_TIMEOUT: Final = 0.5
"""Seconds: a person waits for it with a finger on the key."""


def uplinks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    """Complete the name of an uplink, as a running daemon knows them; nothing without one."""
    from polywan.api import calls
    from polywan.api.requests import Nothing
    from polywan.client import Client, runtime_dir
    from polywan.core.errors import PolywanError

    try:
        status = Client(runtime_dir(ctx.params.get("runtime_dir")), COMPLETION_TIMEOUT).ask(calls.STATUS, Nothing())
    except PolywanError:
        return []
    return [uplink.name for uplink in status.uplinks if uplink.name.startswith(incomplete)]
