"""What the daemon is asked for a view: connections that pass a filter, and why one of them leaves where it does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from polywan.api.views.flow_rows import FlowRow
from polywan.core.net import PROTOCOLS
from polywan.core.status.flow_list import OTHER, PROBE, flow_query_of
from polywan.top.view import View

MOST_ASKED: Final = 200
"""Connections that are asked for: as many as one scrolls through."""


_MEANINGS: Final = {
    "uplink": "the uplink",
    "proto": "the protocol",
    "port": "the port",
    "to": "the destination",
    "client": "the network of the client",
    "find": "what is looked for",
}


def flow_words(view: View) -> dict[str, str]:
    """Return the words of the query for the connections of a view."""
    words = filter_words(view.filter, [uplink.name for uplink in view.status.uplinks])
    # With an offset the daemon may show what it has read a moment ago, for another one who looks.
    return {**words, "sort": view.flow_sort, "limit": str(MOST_ASKED), "offset": "0"}


def filter_words(text: str, uplinks: Collection[str]) -> dict[str, str]:
    """Return what a filter asks for: words such as "lte", "tcp", ":443", "192.168.1.0/24", "to:203.0.113.0/24".

    Another word is looked for in all that is shown of a connection.

    Raises:
        ValueError: words contradict each other, or one makes no sense; the text says what was expected.
    """
    found: dict[str, str] = {}
    for word in text.split():
        key, value = _word(word, uplinks)
        if key in found:
            raise ValueError(f"{word}: only one word can say {_MEANINGS[key]}")
        found[key] = value
    flow_query_of(found)
    return found


def _word(word: str, uplinks: Collection[str]) -> tuple[str, str]:
    if word in uplinks or word in (OTHER, PROBE):
        return "uplink", word
    if word.lower() in PROTOCOLS:
        return "proto", word.lower()
    if word.startswith(":"):
        return "port", word[1:]
    if word.startswith("to:"):
        return "to", word[3:]
    return ("client" if "/" in word else "find"), word


def why_words(row: FlowRow) -> dict[str, str]:
    """Return the words of `why` for a connection."""
    return dict(_why_words(row))


def _why_words(row: FlowRow) -> Iterator[tuple[str, str]]:
    to = f"[{row.destination}]" if row.family == 6 else row.destination
    yield "from", row.client
    yield "to", to if row.port is None else f"{to}:{row.port}"
    yield "protocol", str(row.protocol)
    if row.client_port is not None:
        yield "source_port", str(row.client_port)


def why_lines(row: FlowRow, text: Sequence[str]) -> tuple[str, ...]:
    """Return what is to be said of a connection, above the answer to `why`, which is about a new one."""
    now = {OTHER: "polywan gave this connection no uplink", PROBE: "this connection is a probe of polywan"}
    return (
        f"{now.get(row.uplink, f'this connection uses {row.uplink}')}; a new one would be decided like this:",
        *text,
    )
