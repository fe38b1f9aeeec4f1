"""`polywan plan`: what would change in the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.api.codec import encode
from polywan.cli import options
from polywan.config import load


@click.command(name="plan")
@options.config
@options.runtime
@options.state
@click.option(
    "--observed",
    type=options.path,
    help="Plan against a recording instead of this machine; needs no root and no Linux networking.",
)
@click.option("--record", type=options.path, help="Write a recording of this machine to FILE and exit.")
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path,
    runtime_dir: Path | None,
    state_dir: Path,
    observed: Path | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Show what would change in the kernel, in the order in which it would be done. Changes nothing.

    With a running daemon, these are the changes that `reload` would make; none: the kernel is as it should be.

    Exits with 9 when something would change, 0 when nothing would.

    \b
    Examples:
      polywan plan
      polywan plan --record box.json
      polywan plan --config new.toml --observed box.json
    """
    from polywan.daemon import offline

    config = load(config_path)
    if record is not None:
        offline.record(config, record)
        click.echo(f"recorded to {record}", err=True)
        return
    done = offline.planned_here(config, config_path, runtime_dir, state_dir, observed)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    ops = done.ops
    facts = json.dumps({"changes": len(ops), "ops": encode(ops)}, indent=2)
    click.echo(facts if as_json else "\n".join(op.text for op in ops) or "nothing to change")
    ctx.exit(9 if ops else 0)
