"""Options that several verbs share, each with one default."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_CONFIG = Path("/etc/polywan/polywan.toml")
DEFAULT_STATE = Path("/var/lib/polywan")

_path = click.Path(path_type=Path)

config = click.option(
    "--config",
    "-c",
    "config_path",
    type=_path,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration; conf.d/*.toml beside it is read too.",
)
runtime = click.option(
    "--runtime-dir",
    type=_path,
    envvar="POLYWAN_RUNTIME_DIR",
    default=None,
    help="Where the daemon listens.  [default: $POLYWAN_RUNTIME_DIR or /run/polywan]",
)
state = click.option(
    "--state-dir", type=_path, default=DEFAULT_STATE, show_default=True, help="What the daemon remembers."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
