"""`polywan supervise`: what `polywan try` starts to watch over a trial; no verb for people."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from polywan.cli import options


@click.command(name="supervise")
@options.config
def command(config_path: Path) -> None:
    """Watch the trial of a configuration, and roll it back unless it is confirmed; `polywan try` calls this.

    \b
    Examples:
      polywan supervise --config /etc/polywan/polywan.toml
    """
    from polywan.log_handler import to_stderr
    from polywan.trial.watching import watch

    logging.basicConfig(handlers=[to_stderr()], level=logging.INFO)
    watch(config_path)
