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
@click.option("-v", "--verbose", is_flag=True, help="Also log what helps to debug polywan itself.")
def command(config_path: Path, runtime_dir: Path | None, state_dir: Path, verbose: bool) -> None:
    """Run the daemon in the foreground; systemd runs this.

    It logs to stderr and reloads on SIGHUP. When it ends on SIGTERM or Ctrl-C, the kernel goes on forwarding;
    `polywan down` removes everything.

    \b
    Examples:
      polywan run
      polywan run --config ./polywan.toml --runtime-dir /tmp/pw --state-dir /tmp/pw-state
    """
    from polywan.daemon.main import Places, run

    run(Places(config_path, resolve(runtime_dir), state_dir), verbose=verbose)
