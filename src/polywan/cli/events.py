"""`polywan events`: what happened to every uplink, when, why, and for how long it had been otherwise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.events import Events, LinkEvent
from polywan.api.requests import OfEvents
from polywan.cli import options
from polywan.cli.units import size
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import ControlError
from polywan.core.words import lasted

WAIT: Final = 30
"""Seconds that the daemon may wait with an answer until something happens."""

AGAIN: Final = 1.0
"""Seconds until a daemon is asked again that does not answer: it may be starting anew."""


@click.command(name="events")
@click.option("--uplink", metavar="NAME", shell_complete=options.uplinks, help="Only changes of this uplink.")
@click.option("--since", metavar="TIME", help="Only changes since then: 2h, 7d, 2026-11-30 or 2026-11-30T08:00.")
@click.option("--follow", "-f", is_flag=True, help="Go on printing changes as they happen, until Ctrl-C.")
@options.as_json
@options.runtime
def command(uplink: str | None, since: str | None, follow: bool, as_json: bool, runtime_dir: Path | None) -> None:
    """Show what happened to the uplinks, oldest first: the last 100 changes, or all since a time.

    Each line says what an uplink became and why, how long it had been otherwise, and what went by it meanwhile.
    A line with `found` is what a daemon found when it started. Times are local; with --json they are UTC.

    With --json and --follow, every change is a line of its own.

    \b
    Examples:
      polywan events
      polywan events --uplink fibre --since 7d
      polywan events --since 2026-11-30T08:00 --json | jq '.events[] | select(.state == "down")'
      polywan events --follow
    """
    directory = resolve(runtime_dir)
    client = Client(directory)
    document = client.ask(calls.JOURNAL, OfEvents(uplink=uplink, since=since))
    events, last = [*document.events], document.last
    while document.more:
        more = OfEvents(uplink=uplink, since=since, after=str(last), journal=document.journal)
        document = client.ask(calls.JOURNAL, more)
        events, last = [*events, *document.events], document.last
    if document.problem:
        click.echo(f"the journal is not complete: {document.problem}", err=True)
    if as_json and not follow:
        click.echo(json.dumps({**encode(document), "events": [encode(event) for event in events]}, indent=2))
        return
    width = max((len(event.uplink) for event in events), default=8)
    for event in events:
        click.echo(_line(event, width, as_json=as_json))
    if not events and not follow:
        click.echo("nothing has happened" if since is None else "nothing has happened since then", err=True)
    for event in _following(directory, uplink, document) if follow else ():
        click.echo(_line(event, width, as_json=as_json))


def _following(directory: Path, uplink: str | None, document: Events) -> Iterator[LinkEvent]:
    """Yield changes as they happen; a daemon that ends is waited for."""
    client, away = Client(directory, WAIT + 10.0), False
    while True:
        try:
            after, journal = str(document.last), document.journal
            document = client.ask(calls.JOURNAL, OfEvents(uplink=uplink, after=after, journal=journal, wait=str(WAIT)))
        except ControlError as error:
            if error.status not in (0, 503):
                raise
            if not away:
                click.echo(f"{error}; waiting for it", err=True)
            away = True
            time.sleep(AGAIN)
            continue
        away = False
        yield from document.events


def _line(event: LinkEvent, width: int, *, as_json: bool) -> str:
    return json.dumps(encode(event)) if as_json else text(event, width)


def text(event: LinkEvent, width: int) -> str:
    """Return an entry as a line for people; names are padded to `width`."""
    moment = datetime.fromisoformat(event.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment}  {event.uplink:{width}}  {_what(event)}: {event.reason}{_meanwhile(event)}"


def _what(event: LinkEvent) -> str:
    if event.event in ("address", "renamed", "removed", "quota"):
        return event.event
    if event.event == "found":
        before = f", was {event.previous_state}" if event.previous_state not in (None, event.state) else ""
        return f"found {event.state}{before}"
    return f"{event.previous_state} → {event.state}"


def _meanwhile(event: LinkEvent) -> str:
    parts = []
    if event.lasted_s is not None:
        word = "before that" if event.event == "address" else event.previous_state
        parts.append(f"{word} for {lasted(event.lasted_s)}")
    if event.rx_bytes is not None and event.tx_bytes is not None:
        parts.append(f"{size(event.rx_bytes)} in, {size(event.tx_bytes)} out")
    if event.event == "state" and event.state in ("up", "degraded") and event.previous_state not in ("up", "degraded"):
        parts += [f"address {address}" for address in (event.address, event.address6) if address]
    return f" ({'; '.join(parts)})" if parts else ""
