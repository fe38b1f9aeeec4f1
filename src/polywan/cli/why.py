"""`polywan why`: which uplink a connection would take, and why."""

from __future__ import annotations

import grp
import json
import pwd
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Words
from polywan.api.why import Explanation
from polywan.cli import options
from polywan.cli.names import resolved
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import ControlError


@click.command(name="why")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST[:PORT]")
@click.option("--proto", "protocol", metavar="NAME", help="Protocol, by name or number.  [default: tcp]")
@click.option("--source-port", metavar="PORT", help="The client's port; only the algorithm `connection` uses it.")
@click.option("--in-interface", metavar="DEV", help="Where it arrives.  [default: the device that leads to SRC]")
@click.option("--user", metavar="NAME", help="User who opens it, by name or number; box's own only.")
@click.option("--group", metavar="NAME", help="Group of that program, by name or number.")
@click.option("--cgroup", metavar="PATH", help="Control group of that program.")
@click.option("--mac", metavar="ADDRESS", help="Hardware address of the neighbour that sends it.")
@click.option("--dscp", metavar="CODE", help="DSCP by name or number.")
@click.option("--mark", metavar="MARK", help="Packet mark set by another program or the socket.")
@click.option("--at", metavar="TIME", help="When it begins, such as 2026-03-01T08:00; local time without an offset.")
@click.option("--flow", is_flag=True, help="First list live connections of this kind.")
@options.runtime
@click.option("--observed", type=options.path, help="Use a recording (`plan --record`), not the daemon.")
@options.config
@options.state
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: str,
    destination: str,
    runtime_dir: Path | None,
    observed: Path | None,
    config_path: Path,
    state_dir: Path,
    as_json: bool,
    **asked: Any,
) -> None:
    """Explain which uplink a connection from SRC to DST would take: rule, policy, uplink, gateway, the kernel's answer.

    SRC is an address, or - for this box itself; DST is an address or a name, which is looked up once. Sends
    nothing to either and changes nothing. With --observed it only reads files: no daemon, no root.

    Exits with 9 when the kernel would do something else than polywan decided.

    \b
    Examples:
      polywan why 192.168.15.10 203.0.113.10:443
      polywan why - [2001:db8::1]:443 --user backup
      polywan why - example.com:443
      polywan why 192.168.15.10 203.0.113.10:443 --flow
      polywan why 192.168.15.10 203.0.113.10 --config new.toml --observed box.json
    """
    target, name = resolved(destination, source)
    if name:
        click.echo(name, err=True)
    words = {"from": source, "to": target, **_words(asked)}
    traced = _recorded(config_path, state_dir, observed, words) if observed else _live(runtime_dir, words)
    click.echo(json.dumps(encode(traced), indent=2) if as_json else "\n".join(traced.text))
    ctx.exit(9 if traced.agrees is False else 0)


def _live(runtime_dir: Path | None, words: dict[str, str]) -> Explanation:
    try:
        return Client(resolve(runtime_dir)).ask(calls.WHY, Words(words=words))
    except ControlError as error:
        if error.status == 400:
            raise click.UsageError(str(error)) from error
        raise


def _recorded(config: Path, state_dir: Path, observed: Path, words: dict[str, str]) -> Explanation:
    from polywan.core.trace.question import QuestionError
    from polywan.daemon import offline

    try:
        return offline.explain(config, state_dir, observed, words)
    except QuestionError as error:
        raise click.UsageError(str(error)) from error


def _words(asked: dict[str, Any]) -> dict[str, str]:
    """Return what was said, in words that mean the same in the daemon: no names of accounts, no local time."""
    words = {key: value for key, value in asked.items() if value}
    if "user" in words:
        words["user"] = _number(words["user"], lambda name: pwd.getpwnam(name).pw_uid, "user")
    if "group" in words:
        words["group"] = _number(words["group"], lambda name: grp.getgrnam(name).gr_gid, "group")
    if "at" in words:
        words["at"] = _moment(words["at"])
    return {key: "1" if value is True else str(value) for key, value in words.items()}


def _number(name: str, look_up: Callable[[str], int], what: str) -> str:
    if name.isdecimal():
        return name
    try:
        return str(look_up(name))
    except KeyError:
        raise click.UsageError(f"there is no {what} {name!r} on this machine") from None


def _moment(text: str) -> str:
    try:
        return str(int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        raise click.UsageError(f"--at: expected a time such as 2026-03-01T08:00, got {text!r}") from None
