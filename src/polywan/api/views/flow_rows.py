"""Tracked connections by name, and from the document that has them as lists. No other call is to wait for this."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple

from polywan.api.codec import DocumentError, types_of
from polywan.api.flows import Cells, Flows


class FlowRow(NamedTuple):
    """A tracked connection and its uplink; there may be tens of thousands, so that JSON has them as lists.

    Attributes:
        family: 4 or 6.
        protocol: number (IANA).
        client, destination: ends as the client knows them; ports are None for protocols without.
        reply_source, reply_destination: who answers whom; others where the connection is translated.
        state: TCP's, as conntrack(8) prints it; of others UNREPLIED, ASSURED or nothing.
        mark: the connection mark's bits that are ours.
        age: seconds since it began, timeout: until it is forgotten.
        bytes_up, bytes_down, packets_up, packets_down: from the client and to it; None where the kernel did not count.
        fast: 1 when its packets take the fast path, which has no timeout, 0 when not; None from an older daemon.
        uplink: a name, "other" or "probe".
    """

    family: int
    protocol: int
    client: str
    client_port: int | None
    destination: str
    port: int | None
    reply_source: str | None
    reply_source_port: int | None
    reply_destination: str | None
    reply_destination_port: int | None
    state: str
    mark: int
    age: float | None
    timeout: int | None
    bytes_up: int | None
    bytes_down: int | None
    packets_up: int | None
    packets_down: int | None
    fast: int | None
    uplink: str


_LATER: Final = ("fast",)
"""Columns that were added later."""


def rows_of(document: Flows) -> list[FlowRow]:
    """Return the connections of a document, with the columns that are known here.

    Raises:
        DocumentError: one of these is not there, or something else stands in it.
    """
    wanted, columns = FlowRow._fields, document.columns
    if lacking := [name for name in wanted if name not in columns and name not in _LATER]:
        raise DocumentError(f"columns: there is no {', '.join(lacking)}")
    if {*map(len, document.flows)} - {len(columns)}:
        raise DocumentError(f"flows: expected {len(columns)} values of each connection")
    # What an older daemon does not tell is the None behind the values that it does.
    places = itemgetter(*(columns.index(name) if name in columns else len(columns) for name in wanted))
    rows: Sequence[Cells] = document.flows if {*wanted} <= {*columns} else [(*row, None) for row in document.flows]
    picked: Sequence[Cells] = rows if columns == wanted else [*map(places, rows)]
    # However many connections there are, what they have where is of few kinds.
    for kinds in {tuple(map(type, row)) for row in picked}:
        for (name, declared), kind in zip(FlowRow.__annotations__.items(), kinds, strict=True):
            if kind not in types_of(declared):
                raise DocumentError(f"flows: {name} is of the wrong kind")
    return [*map(partial(tuple.__new__, FlowRow), picked)]
