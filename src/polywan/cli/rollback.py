"""`polywan rollback`: end the trial, or go back to a configuration that was in force."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path

import click

from polywan.api.codec import encode
from polywan.cli import options
from polywan.cli.reload import text
from polywan.client import runtime_dir as resolve


@click.command(name="rollback")
@click.argument("number", type=click.IntRange(min=1), required=False, metavar="[N]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Go back even if that cuts your ssh connection.")
@options.config
@options.as_json
@options.runtime
@click.pass_context
def command(
    ctx: click.Context,
    number: int | None,
    yes: bool,
    force: bool,
    config_path: Path,
    as_json: bool,
    runtime_dir: Path | None,
) -> None:
    """End the trial now, and return when the old configuration is in force again and verified.

    With N, put the configuration back that `polywan history` lists under that number: 1 is the one before.

    \b
    Examples:
      polywan rollback
      polywan rollback 1
      polywan rollback 2 --yes
    """
    if number is not None:
        _go_back(ctx, resolve(runtime_dir), config_path, number, yes=yes, force=force, as_json=as_json)
        return
    from polywan.trial import finishing

    record, down = finishing.end(config_path)
    if as_json:
        click.echo(json.dumps({"id": record.id, "outcome": "rolled back", "down": list(down)}, indent=2))
        return
    for line in down:
        click.echo(f"warning: {line}", err=True)
    click.echo("rolled back: the old configuration is in force, in the daemon and in the kernel")


def _go_back(
    ctx: click.Context, directory: Path, config: Path, number: int, *, yes: bool, force: bool, as_json: bool
) -> None:
    from polywan.trial import finishing

    past = finishing.Past(directory, config, number)
    if not past.names:
        click.echo("nothing to change: the files say that already")
        return
    for line in difference(past.before, past.after):
        click.echo(line, err=True)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: use --yes", ctx)
    if not yes and not click.confirm("put this in force?", err=True):
        raise click.Abort
    done = past.put_back(force=force)
    click.echo(json.dumps(encode(done), indent=2) if as_json else text(done))


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the difference of files as diff(1) shows it, without what would order a terminal about."""
    from polywan.core.words import printable

    found: list[str] = []
    for name in dict.fromkeys((*before, *after)):
        # Not by splitlines: the ends of lines may be all that differs.
        old, new = (files[name].split("\n") if name in files else [] for files in (before, after))
        found += difflib.unified_diff(old, new, f"{name} (now)", f"{name} (then)", lineterm="")
    return [printable(line, keep="\t") for line in found]
