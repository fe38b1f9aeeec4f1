"""`polywan plan`: what would change in the kernel."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.cli import options
from polywan.config import load
from polywan.core.plan import Plan, describe


@click.command(name="plan")
@options.config
@options.state
@click.option(
    "--observed",
    type=click.Path(path_type=Path),
    help="Plan against a recording instead of this machine; needs no root and no Linux networking.",
)
@click.option("--record", type=click.Path(path_type=Path), help="Write a recording of this machine to FILE and stop.")
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path,
    state_dir: Path,
    observed: Path | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Show what would change in the kernel, in the order in which it would be done. Changes nothing.

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
    plan, warnings = offline.plan(config, state_dir, observed)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_as_json(plan) if as_json else _as_text(plan))
    ctx.exit(9 if plan else 0)


def _as_json(plan: Plan) -> str:
    ops = [{"op": type(op).__name__, "text": describe(op)} for op in plan.ops]
    return json.dumps({"changes": len(ops), "ops": ops}, indent=2)


def _as_text(plan: Plan) -> str:
    return "\n".join(map(describe, plan.ops)) if plan else "nothing to change"
