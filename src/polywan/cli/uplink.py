"""`polywan uplink`: take an uplink out of use by hand, take it back, test it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.calls import Asked, Call
from polywan.api.codec import encode
from polywan.api.requests import DrainUplink, OfOrder, OfUplink
from polywan.api.uplinks import UplinkChanged, UplinkReport
from polywan.cli import options
from polywan.cli.suggesting import Suggesting
from polywan.client import Client
from polywan.client import runtime_dir as resolve

COMMAND_TIMEOUT = 60.0
"""Seconds that the daemon may take: a test waits for the slowest check."""

EXITS = {"ok": 0, "degraded": 6, "down": 7}

_dry_run = click.option("--dry-run", is_flag=True, help="Say what it would do now, and do nothing.")
_name = click.argument("name", shell_complete=options.uplinks)


@click.group(name="uplink", cls=Suggesting)
def command() -> None:
    """Disable, drain, enable or test an uplink; needs root.

    `disable` and `drain` hold over restarts, until `enable`.

    \b
    Examples:
      polywan uplink disable lte
      polywan uplink drain fibre --deadline 30m
      polywan uplink enable fibre
      polywan uplink test dsl
    """


@command.command(name="disable", short_help="Take it out of use: no new connections, no probes.")
@_name
@_dry_run
@options.as_json
@options.runtime
def disable(name: str, dry_run: bool, as_json: bool, runtime_dir: Path | None) -> None:
    """Give uplink NAME no new connections and stop probing it; its connections stay while it has a path.

    \b
    Examples:
      polywan uplink disable lte
      polywan uplink disable lte --json
      polywan uplink disable lte --dry-run
    """
    if dry_run:
        _tell(OfOrder(name=name, order="disable"), runtime_dir, as_json=as_json)
        return
    _order(calls.DISABLE, OfUplink(name=name), runtime_dir, as_json=as_json)


@command.command(name="enable", short_help="Put it back into use.")
@_name
@_dry_run
@options.as_json
@options.runtime
def enable(name: str, dry_run: bool, as_json: bool, runtime_dir: Path | None) -> None:
    """Put uplink NAME back into use after `disable` or `drain`.

    \b
    Examples:
      polywan uplink enable lte
    """
    if dry_run:
        _tell(OfOrder(name=name, order="enable"), runtime_dir, as_json=as_json)
        return
    _order(calls.ENABLE, OfUplink(name=name), runtime_dir, as_json=as_json)


@command.command(name="drain", short_help="Move its connections away by a deadline.")
@_name
@click.option(
    "--deadline",
    metavar="TIME",
    help="How long connections may stay, such as 10m or 30s; 0 ends them now.  [default: 10m]",
)
@_dry_run
@options.as_json
@options.runtime
def drain(name: str, deadline: str | None, dry_run: bool, as_json: bool, runtime_dir: Path | None) -> None:
    """Drain uplink NAME: no new connections, idle non-TCP ones move, and all others end at the deadline.

    Probing continues, and the uplink stays out of use until `enable`.

    \b
    Examples:
      polywan uplink drain fibre
      polywan uplink drain fibre --deadline 30m
      polywan uplink drain fibre --deadline 0
    """
    if dry_run:
        _tell(OfOrder(name=name, order="drain", deadline=deadline), runtime_dir, as_json=as_json)
        return
    _order(calls.DRAIN, DrainUplink(name=name, deadline=deadline), runtime_dir, as_json=as_json)


@command.command(name="test", short_help="Probe it now and show each layer.")
@_name
@options.as_json
@options.runtime
@click.pass_context
def test(ctx: click.Context, name: str, as_json: bool, runtime_dir: Path | None) -> None:
    """Probe uplink NAME now and print the result of each layer; exit with 6 when it is degraded, 7 when it is down.

    \b
    Examples:
      polywan uplink test dsl
      polywan uplink test dsl --json | jq '.layers[] | select(.verdict == "broken")'
    """
    done = Client(resolve(runtime_dir), COMMAND_TIMEOUT).ask(calls.TEST, OfUplink(name=name))
    click.echo(json.dumps(encode(done), indent=2) if as_json else text(done))
    ctx.exit(EXITS[done.verdict])


def _tell(asked: OfOrder, runtime_dir: Path | None, *, as_json: bool) -> None:
    answer = Client(resolve(runtime_dir), COMMAND_TIMEOUT).ask(calls.EFFECT, asked)
    click.echo(json.dumps(encode(answer), indent=2) if as_json else "\n".join(answer.text))


def _order(call: Call[Asked, UplinkChanged], asked: Asked, runtime_dir: Path | None, *, as_json: bool) -> None:
    done = Client(resolve(runtime_dir), COMMAND_TIMEOUT).ask(call, asked)
    until = "" if done.saved else " until the daemon restarts"
    said = f"{done.uplink} is {done.state}{until}: {done.reason}"
    click.echo(json.dumps(encode(done), indent=2) if as_json else said)
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not done.saved:
        click.get_current_context().exit(1)


def text(done: UplinkReport) -> str:
    """Return the outcome of a test for people."""
    lines = [f"{done.uplink} is {done.state}: {done.reason}"]
    lines += [f"  {each.layer:12} {each.verdict:8} {each.detail}".rstrip() for each in done.layers]
    if not done.complete:
        lines.append("some results did not arrive in time")
    return "\n".join([*lines, f"verdict: {done.verdict}"])
