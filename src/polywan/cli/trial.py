"""`polywan try`: a configuration is in force, and the old one comes back unless it is confirmed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polywan.cli import drop_output, options
from polywan.client import runtime_dir as resolve

if TYPE_CHECKING:
    from polywan.trial.trying import Attempt
    from polywan.trial.waiting import Outcome

CONFIRMED, STOPPED = "confirmed", "stopped"
"""Values of `waiting.End`, which is imported only when a trial is."""

TOO_LATE = 15.0
"""Seconds behind the end of a trial after which its rollback takes unusually long."""

NOT_CONFIRMED = 8
"""Exit code after a rollback."""


@click.command(name="try")
@click.argument("file", type=options.path, required=False)
@click.option(
    "--timeout",
    type=click.IntRange(10, 3600),
    default=90,
    show_default=True,
    metavar="SECONDS",
    help="Time until the old configuration comes back unless the new one is confirmed.",
)
@click.option(
    "--auto-confirm",
    is_flag=True,
    help="Confirm when every uplink that was up is up and your connection has answers.",
)
@options.config
@options.as_json
@options.runtime
@click.pass_context
def command(
    ctx: click.Context,
    file: Path | None,
    timeout: int,
    auto_confirm: bool,
    config_path: Path,
    as_json: bool,
    runtime_dir: Path | None,
) -> None:
    """Put the configuration in FILE in force; the old one comes back by itself without `polywan confirm`.

    Without FILE it tries what was edited in /etc/polywan: it has its old text again until the trial is confirmed.
    The old configuration also comes back when this terminal closes, the daemon dies or the machine restarts.

    It comes back at once, without waiting, when an uplink that was up is not, or when your ssh connection is cut.
    Exits with 8 when the old configuration is in force again, with 0 when the new one is confirmed.

    \b
    Examples:
      polywan try new.toml
      polywan try new.toml --timeout 300
      polywan try --auto-confirm
    """
    from polywan.kernel.conntrack.progress import progress
    from polywan.trial import trying

    wish = trying.Wish(
        runtime_dir=resolve(runtime_dir),
        config=config_path,
        file=file,
        seconds=timeout,
        auto_confirm=auto_confirm,
        command="polywan confirm" + ("" if config_path == options.DEFAULT_CONFIG else f" --config {config_path}"),
    )
    attempt, found = trying.run(wish, progress, _tell, _counting(timeout))
    with _unread():
        _show(attempt, found, as_json=as_json)
    ctx.exit(0 if found.end == CONFIRMED else NOT_CONFIRMED)


@contextmanager
def _unread() -> Iterator[None]:
    """Go on where nobody reads what is said, as in `polywan try | head -1`: the exit code says it, too."""
    try:
        yield
    except OSError:
        drop_output()


def _show(attempt: Attempt, found: Outcome, *, as_json: bool) -> None:
    if as_json:
        facts = {"id": attempt.record.id, "outcome": found.end.value, "by": found.by, "reason": found.reason}
        click.echo(json.dumps({**facts, "changes": list(attempt.done.changes)}, indent=2))
    elif found.end == CONFIRMED:
        click.echo(f"confirmed by {found.by}: the new configuration is in force for good")
    elif found.end == STOPPED:
        click.echo(
            "ended: the daemon was stopped; it starts with the old configuration, and until then the kernel forwards "
            "by the new one"
        )
    else:
        why = f": {found.reason}" if found.reason else ""
        click.echo(f"rolled back{why}\nthe old configuration is in force again")


def _tell(line: str) -> None:
    # Without a terminal that reads it, the trial goes on.
    with suppress(OSError):
        click.echo(line, err=True)


def _counting(seconds: float) -> Callable[[float], None]:
    """Return what counts down on a terminal, every second, and says once when the end does not come."""
    last, overdue = [round(seconds)], [False]

    def tick(remaining: float) -> None:
        shown = max(0, round(remaining))
        if sys.stderr.isatty() and shown != last[0]:
            last[0] = shown
            with suppress(OSError):
                click.echo(f"\r{shown:4} s \r", err=True, nl=False)
        if remaining < -TOO_LATE and not overdue[0]:
            overdue[0] = True
            _tell("the old configuration is not in force yet, and is tried again: the log of polywan says why")

    return tick
