"""`polywan run`: the daemon."""

from __future__ import annotations

from pathlib import Path

import click

from polywan.cli import options
from polywan.client import runtime_dir as resolve


@click.command(name="run")
@options.config
@options.runtime
@options.state
@click.option("-v", "--verbose", is_flag=True, help="Log what helps to find a fault in polywan itself, too.")
def command(config_path: Path, runtime_dir: Path | None, state_dir: Path, verbose: bool) -> None:
    """Run the daemon in the foreground; systemd runs this.

    It logs to stderr, reloads on SIGHUP, and on SIGTERM or Ctrl-C leaves the data plane forwarding:
    `polywan down` is what removes it.

    \b
    Examples:
      polywan run
      polywan run --config ./polywan.toml --runtime-dir /tmp/pw --state-dir /tmp/pw-state
    """
    from polywan.daemon.main import Places, run

    run(Places(config_path, resolve(runtime_dir), state_dir), verbose=verbose)
