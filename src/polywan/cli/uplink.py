"""`polywan uplink`: take an uplink out of use by hand, take it back, test it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from polywan.cli import options
from polywan.cli.suggesting import Suggesting
from polywan.client import Client
from polywan.client import runtime_dir as resolve

COMMAND_TIMEOUT = 60.0
"""Seconds that the daemon may take: a test waits for the slowest check."""

EXITS = {"ok": 0, "degraded": 6, "down": 7}

_name = click.argument("name")


@click.group(name="uplink", cls=Suggesting)
def command() -> None:
    """Take an uplink out of use, take it back, or test it; for root.

    What is said here is kept over restarts, until `enable`.

    \b
    Examples:
      polywan uplink disable lte
      polywan uplink drain fibre --deadline 30m
      polywan uplink enable fibre
      polywan uplink test dsl
    """


@command.command(name="disable", short_help="No new connections, and no probes.")
@_name
@options.as_json
@options.runtime
def disable(name: str, as_json: bool, runtime_dir: Path | None) -> None:
    """Give uplink NAME no new connections and do not probe it; those that it has stay while it has a path.

    \b
    Examples:
      polywan uplink disable lte
      polywan uplink disable lte --json
    """
    _order(name, "disable", None, runtime_dir, as_json=as_json)


@command.command(name="enable", short_help="Take it back into use.")
@_name
@options.as_json
@options.runtime
def enable(name: str, as_json: bool, runtime_dir: Path | None) -> None:
    """Take uplink NAME back into use after `disable` or `drain`.

    \b
    Examples:
      polywan uplink enable lte
    """
    _order(name, "enable", None, runtime_dir, as_json=as_json)


@command.command(name="drain", short_help="Empty it until a deadline.")
@_name
@click.option(
    "--deadline",
    metavar="TIME",
    help="How long connections may stay: 10m, 30s, 0 to end them now.  [default: 10m]",
)
@options.as_json
@options.runtime
def drain(name: str, deadline: str | None, as_json: bool, runtime_dir: Path | None) -> None:
    """Empty uplink NAME: no new connections, pausing ones move (but TCP), and at the deadline all others are ended.

    It is probed on, and stays out of use until `enable`.

    \b
    Examples:
      polywan uplink drain fibre
      polywan uplink drain fibre --deadline 30m
      polywan uplink drain fibre --deadline 0
    """
    _order(name, "drain", deadline, runtime_dir, as_json=as_json)


@command.command(name="test", short_help="Probe it now; what each layer says.")
@_name
@options.as_json
@options.runtime
@click.pass_context
def test(ctx: click.Context, name: str, as_json: bool, runtime_dir: Path | None) -> None:
    """Probe uplink NAME now and print what each layer says; exit with 6 when it is degraded, 7 when it is down.

    \b
    Examples:
      polywan uplink test dsl
      polywan uplink test dsl --json | jq '.layers[] | select(.verdict == "broken")'
    """
    done = Client(resolve(runtime_dir), COMMAND_TIMEOUT).test(name)
    click.echo(json.dumps(done, indent=2) if as_json else text(done))
    ctx.exit(EXITS[done["verdict"]])


def _order(name: str, verb: str, deadline: str | None, runtime_dir: Path | None, *, as_json: bool) -> None:
    done = Client(resolve(runtime_dir), COMMAND_TIMEOUT).order(name, verb, deadline)
    kept = done.get("saved", True)
    until = "" if kept else " until the daemon is started anew"
    click.echo(json.dumps(done, indent=2) if as_json else f"{name} is {done['state']}{until}: {done['reason']}")
    for warning in done["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if not kept:
        click.get_current_context().exit(1)


def text(done: dict[str, Any]) -> str:
    """Return the outcome of a test for people."""
    lines = [f"{done['uplink']} is {done['state']}: {done['reason']}"]
    lines += [f"  {each['layer']:12} {each['verdict']:8} {each['detail']}".rstrip() for each in done["layers"]]
    if not done["complete"]:
        lines.append("some results did not come in time")
    return "\n".join([*lines, f"verdict: {done['verdict']}"])
