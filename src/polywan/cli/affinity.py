"""`polywan affinity`: clients that keep their uplink, and letting go of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.affinity import KeptClient
from polywan.api.codec import encode
from polywan.api.requests import OfPolicy, WhomToForget
from polywan.cli import options
from polywan.cli.suggesting import Suggesting
from polywan.cli.units import duration
from polywan.client import Client
from polywan.client import runtime_dir as resolve

HEADINGS = ("CLIENT", "SERVER", "POLICY", "UPLINK", "FOR")

_policy = click.option("--policy", metavar="P", help="Only clients of this policy.")


@click.group(name="affinity", cls=Suggesting, invoke_without_command=True)
@_policy
@options.as_json
@options.runtime
@click.pass_context
def command(ctx: click.Context, policy: str | None, as_json: bool, runtime_dir: Path | None) -> None:
    """List the clients that keep their uplink (`affinity` of a policy), and for how long unless they connect again.

    \b
    Examples:
      polywan affinity
      polywan affinity --policy banking --json
      polywan affinity clear 192.168.1.20
      polywan affinity clear --all
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = (policy, runtime_dir)
        return
    document = Client(resolve(runtime_dir)).ask(calls.AFFINITY, OfPolicy(policy=policy or None))
    clients = document.clients
    click.echo(json.dumps(encode(document)) if as_json else text(clients))
    if not clients and not as_json:
        click.echo("no client keeps an uplink; only policies with `affinity` keep clients", err=True)


@command.command(name="clear", short_help="Forget clients.")
@click.argument("address", required=False)
@click.option("--all", "everyone", is_flag=True, help="Forget every client.")
@_policy
@options.runtime
@click.pass_obj
def clear(
    outer: tuple[str | None, Path | None],
    address: str | None,
    everyone: bool,
    policy: str | None,
    runtime_dir: Path | None,
) -> None:
    """Forget a client (ADDRESS or a network): its next connection is balanced again. Needs root.

    Open connections stay where they are.

    \b
    Examples:
      polywan affinity clear 192.168.1.20
      polywan affinity clear 192.168.2.0/24 --policy default
      polywan affinity clear --all
    """
    if (address is None) is not everyone:
        raise click.UsageError("give an ADDRESS, or --all")
    client = Client(resolve(runtime_dir or outer[1]))
    whom = WhomToForget(address=address, all="true" if everyone else None, policy=policy or outer[0] or None)
    number = client.ask(calls.CLEAR_AFFINITY, whom).forgotten
    click.echo(f"{number} client{'s' * (number != 1)} forgotten", err=True)


def text(clients: Sequence[KeptClient]) -> str:
    """Return clients as a table for people."""
    lines = [
        HEADINGS,
        *((c.client, c.server or "any", c.policy, c.uplink, duration(c.expires_s)) for c in clients),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
