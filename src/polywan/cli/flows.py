"""`polywan flows`: every tracked connection and its uplink."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import click

from polywan.api import calls
from polywan.api.codec import DocumentError, encode
from polywan.api.flows import Flows, Total
from polywan.api.requests import Words
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.cli import options
from polywan.cli.units import duration, size
from polywan.client import Client, Parts, senseless
from polywan.client import runtime_dir as resolve
from polywan.core.net import PROTOCOL_NAMES
from polywan.core.status.flow_list import MOST_SORTED, SORT_KEYS, flow_query_of, ordered

HEADINGS = ("CLIENT", "DESTINATION", "PROTO", "STATE", "UPLINK", "AGE", "DOWN", "UP")


@click.command(name="flows")
@click.option(
    "--uplink",
    metavar="NAME",
    shell_complete=options.uplinks,
    help='Only connections on this uplink; "other" for those without one, "probe" for those of polywan.',
)
@click.option("--client", metavar="CIDR", help="Only connections of this client or network.")
@click.option("--to", metavar="CIDR", help="Only connections to this address or network.")
@click.option("--port", metavar="N", help="Only connections to this port.")
@click.option("--proto", metavar="P", help="Only this protocol: tcp, udp, icmp … or a number.")
@click.option("--sort", type=click.Choice(SORT_KEYS), help="Most bytes first, oldest first, by client or by uplink.")
@click.option("--limit", metavar="N", help="List at most N; the totals still count all.")
@click.option("--count", is_flag=True, help="Print only the number of connections on each uplink.")
@options.as_json
@options.runtime
def command(count: bool, as_json: bool, runtime_dir: Path | None, **text: str | None) -> None:
    """List every connection that the kernel tracks: client, destination, uplink, age and bytes.

    Sorted by client, unless there are more than 5000 or --sort is given. Totals by uplink follow on stderr.
    Bytes and age are known only for connections that began under polywan. "fast" behind the state: its packets take
    the kernel's fast path.

    \b
    Examples:
      polywan flows --client 192.168.1.20
      polywan flows --uplink lte --sort bytes --limit 20
      polywan flows --proto udp --port 53 --json | jq '.flows[].destination'
      polywan flows --count
    """
    wanted = {key: value for key, value in text.items() if value is not None}
    if count:
        wanted["limit"] = "0"
    try:
        asked = flow_query_of(wanted)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    sorts = asked.sort is not None and (asked.limit is None or asked.limit > MOST_SORTED)
    if sorts:
        wanted = {key: value for key, value in wanted.items() if key not in {"sort", "limit"}}
    # Looking for garbage among 60 000 lists that all stay takes longer than printing them.
    gc.disable()
    # What may not be shown is not written while it comes.
    listing = _Listing(objects if as_json else cells, at_once=asked.limit is None)
    document = Client(resolve(runtime_dir)).ask_in_parts(calls.FLOWS, Words(words=wanted), PARTS, listing.take)
    listing.take(document)
    totals = document.totals
    if count:
        click.echo(json.dumps({"totals": encode(totals)}, indent=2) if as_json else counts(totals))
        return
    rows = listing.rows
    if asked.sort is not None and sorts:
        places: Sequence[int] = ordered(rows, asked.sort)[: asked.limit]
    elif asked.limit is None and len(rows) <= MOST_SORTED:
        places = ordered(rows, "client")
    else:
        places = range(len(rows))
    _show(document, listing.written(places), as_json=as_json)


PARTS: Final = Parts("flows", {"totals": []})


class _Listing:
    """Connections that come in parts, and what is written of them.

    They are written as they came and put in order afterwards: what came together is together in memory.
    """

    def __init__(self, write: Callable[[Sequence[FlowRow]], Iterable[Any]], *, at_once: bool) -> None:
        self.rows: list[FlowRow] = []
        self._write = write
        self._at_once = at_once
        self._written: list[Any] = []

    def take(self, document: Flows) -> None:
        """Take the next connections."""
        rows = _rows(document)
        self.rows += rows
        if self._at_once:
            self._written += self._write(rows)

    def written(self, places: Sequence[int]) -> list[Any]:
        """Return what was written of the rows at these places, in that order."""
        if self._at_once:
            return [self._written[place] for place in places]
        return [*self._write([self.rows[place] for place in places])]


def _rows(document: Flows) -> list[FlowRow]:
    try:
        return rows_of(document)
    except DocumentError as error:
        raise senseless(error) from error


def _show(document: Flows, written: Sequence[Any], *, as_json: bool) -> None:
    totals = document.totals
    if as_json:
        head, flows, tail = json.dumps({"schema": document.schema, "flows": [], "totals": encode(totals)}).partition(
            "["
        )
        sys.stdout.writelines((head, flows, ", ".join(written), tail, "\n"))
    else:
        sys.stdout.writelines(("\n".join(_table(written)), "\n"))
        # The sums belong below the list, wherever both go.
        sys.stdout.flush()
        click.echo(sums(totals, len(written)), err=True)


_PLAIN: Final = re.compile(r"[0-9A-Za-z_.:+-]*")
_TEXTS: Final = itemgetter(
    *map(FlowRow._fields.index, ("client", "destination", "reply_source", "reply_destination", "state", "uplink"))
)
_FORMS: Final[dict[type, str]] = {str: '"%s"', int: "%d", float: "%r", type(None): "null%.0s"}


def objects(rows: Sequence[FlowRow]) -> Iterator[str]:
    """Yield connections as JSON objects: keys are most of them, and are written once for all rows of a kind."""
    words = {*chain.from_iterable(map(_TEXTS, rows))}
    if not all(_PLAIN.fullmatch(word) for word in words if word is not None):
        yield from (json.dumps(row._asdict()) for row in rows)
        return
    forms: dict[tuple[type, ...], str] = {}
    for row in rows:
        kinds = tuple(map(type, row))
        form = forms.get(kinds)
        if form is None:
            form = forms[kinds] = _form(kinds)
        yield form % row if form else json.dumps(row._asdict())


def _form(kinds: Sequence[type]) -> str:
    """Return the JSON of connections whose values are of these types, without the values; empty for other types."""
    if not _FORMS.keys() >= {*kinds}:
        return ""
    fields = zip(FlowRow._fields, kinds, strict=True)
    return "{" + ", ".join(f'"{key}": {_FORMS[kind]}' for key, kind in fields) + "}"


def text(rows: Sequence[FlowRow]) -> list[str]:
    """Return connections as the lines of a table for people, under its heading."""
    return _table([*cells(rows)])


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"%-{width}s" for width in widths[:-2]) + f"  %{widths[-2]}s  %{widths[-1]}s"
    return [form % line for line in lines]


class _Written(dict[Any, str]):
    """What was written once serves for every further row."""

    def __init__(self, write: Callable[[Any], str]) -> None:
        super().__init__({None: "-"})
        self._write = write

    def __missing__(self, value: Any) -> str:
        self[value] = text = self._write(value)
        return text


def cells(rows: Sequence[FlowRow]) -> Iterator[tuple[str, ...]]:
    """Yield connections as the cells below `HEADINGS`."""
    protocols = _Written(lambda number: PROTOCOL_NAMES.get(number) or str(number))
    durations, sizes = _Written(duration), _Written(size)
    # Reading attributes of tens of thousands of rows would take as long as all that is made of them.
    for (
        family, protocol, client, client_port, destination, port, source, source_port, _, _,
        state, _, age, _, up, down, _, _, fast, uplink,
    ) in rows:  # fmt: skip
        ends = (client, destination, source)
        asks, to, answers = (f"[{end}]" for end in ends) if family == 6 and port is not None else ends
        there = to if port is None else f"{to}:{port}"
        if source != destination or source_port != port:
            there += f" ({answers if source_port is None else f'{answers}:{source_port}'})"
        yield (
            asks if client_port is None else f"{asks}:{client_port}",
            there,
            protocols[protocol],
            f"{state} fast" if fast else state,
            uplink,
            durations[age if age is None else int(age)],
            sizes[down],
            sizes[up],
        )


def counts(totals: Sequence[Total]) -> str:
    """Return a line for each uplink: its name, and how many connections it has."""
    width = max((len(total.uplink) for total in totals), default=0)
    return "\n".join(f"{total.uplink:<{width}}  {total.connections}" for total in totals)


def sums(totals: Sequence[Total], shown: int) -> str:
    """Return what connections add up to by uplink, as sentences."""
    lines = []
    for total in totals:
        line = f"{total.uplink}: {_connections(total.connections)}"
        if total.bytes_down is not None and total.bytes_up is not None:
            line += f", {size(total.bytes_down)} down, {size(total.bytes_up)} up"
        lines.append(line)
    matched = sum(total.connections for total in totals)
    return "\n".join([*lines, f"{shown} of {_connections(matched)} shown"] if shown < matched else lines)


def _connections(number: int) -> str:
    return f"{number} connection{'s' * (number != 1)}"
