"""What is seen of the story: a live table on a terminal, plain lines elsewhere, JSON on request."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from polywan.api.status import Status
from polywan.lab.scenario import Audience, Report
from polywan.lab.verdict import Event

_COLOURS: Final = {"up": "green", "degraded": "yellow", "down": "red"}
_ROWS: Final = 16
_WIDTH: Final = 130
_SCHEMA: Final = 1


class Plain:
    """Progress as lines, each with the seconds since the start."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._began = stream, time.monotonic()

    def say(self, text: str) -> None:
        """Write one line."""
        print(f"{time.monotonic() - self._began:6.2f} s  {text}", file=self._stream, flush=True)

    def show(self, status: Status, recent: Counter[int], failed: int) -> None:
        """Show nothing: lines that repeat themselves tell nothing."""


class Screen:
    """A table that refreshes itself below the lines of progress."""

    def __init__(self, live: Live) -> None:
        self._live, self._began = live, time.monotonic()

    def say(self, text: str) -> None:
        """Write one line above the table."""
        moment = f"{time.monotonic() - self._began:6.2f} s  "
        self._live.console.print(Text.assemble((moment, "dim"), text))

    def show(self, status: Status, recent: Counter[int], failed: int) -> None:
        """Refresh the table."""
        table = Table(box=None, pad_edge=False)
        for column in ("uplink", "state", "share wanted", "share seen", "connections", "reason"):
            table.add_column(column, justify="right" if "share" in column or column == "connections" else "left")
        total = recent.total()
        for number, uplink in enumerate(status.uplinks, 1):
            if number > _ROWS:
                break
            state = uplink.state
            table.add_row(
                uplink.name,
                Text(state, style=_COLOURS.get(state, "")),
                f"{uplink.share:.1%}",
                f"{recent[number] / total:.1%}" if total else "-",
                str(uplink.connections),
                Text(uplink.reason),
            )
        more = len(status.uplinks) - _ROWS
        last = f"new connections in the last 5 s: {total} opened, {failed} failed"
        self._live.update(
            Group(table, Text(last + (f"; {more} more uplinks not shown" if more > 0 else ""), style="dim"))
        )


@contextmanager
def audience(stream: IO[str], *, live: bool) -> Iterator[Audience]:
    """Choose who watches: a live screen on a terminal, plain lines otherwise."""
    if not live:
        yield Plain(stream)
        return
    with Live(console=Console(file=stream), refresh_per_second=4, transient=True) as screen:
        yield Screen(screen)


def as_json(report: Report) -> str:
    """Return the report as one JSON document; its schema only ever grows."""
    document = {"schema": _SCHEMA, "held": report.held, **asdict(report)}
    return json.dumps(document, indent=2)


def print_report(report: Report, stream: IO[str]) -> None:
    """Write the timeline, the shares, the timings and the verdict."""
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else _WIDTH)
    console.print(_timeline(report))
    console.print()
    for share in report.shares if report.uplinks <= 8 else ():
        wanted = ":".join(map(str, share.weights))
        console.print(f"{share.what}: wanted {wanted}, seen {':'.join(map(str, share.seen))}")
    console.print("measured: " + ", ".join(f"{what} {ms:.1f} ms" for what, ms in report.timings.items()))
    console.print()
    for promise in report.promises:
        word = ("kept  ", "green") if promise.held else ("BROKEN", "bold red")
        console.print(Text.assemble(word, f"  {promise.text}: {promise.measured}"))
    kept = sum(promise.held for promise in report.promises)
    console.print(f"\n{kept} of {len(report.promises)} promises kept, {report.seconds:.0f} s")


def _timeline(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("event")
    columns = ("at s", "noticed ms", "tried", "failed", "last failure ms", "own freed ms", "others hurt")
    for column in columns:
        table.add_column(column, justify="right")
    first = report.events[0].step.at if report.events else 0.0
    for event in report.events:
        table.add_row(event.step.name, *_cells(event, first))
    return table


def _cells(event: Event, first: float) -> tuple[str, ...]:
    return (
        f"{event.step.at - first:.1f}",
        _ms(event.step.noticed),
        str(event.tried),
        str(event.failed),
        _ms(event.last_failure),
        _ms(event.freed),
        str(len(event.disturbed)),
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f}"
