"""Tracked connections: which are wanted, in which order, and what they add up to."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import starmap
from typing import Final, Literal, TypeAlias, assert_never, get_args

from polywan.api.flows import Total
from polywan.api.views.flow_rows import FlowRow
from polywan.core.net import PROTOCOLS, IPNetwork
from polywan.core.world.conntrack import Flow

OTHER: Final = "other"
"""Stands for the uplink of connections that polywan gave none."""

PROBE: Final = "probe"
"""Stands for the uplink of the daemon's own probes, which no rule gives one: each is bound to the one it is about."""

Pairs: TypeAlias = Collection[tuple[str, str]]
"""Source and destination of what is not told from its mark."""


SortKey: TypeAlias = Literal["bytes", "age", "client", "uplink"]
SORT_KEYS: Final[tuple[SortKey, ...]] = get_args(SortKey)


MOST_SORTED: Final = 5000
"""Rows that the daemon sorts for somebody: with more, all its threads would wait for tens of milliseconds."""


LONGEST_FIND: Final = 100
"""Characters of what is looked for: no text of a connection has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowQuery:
    """Which connections, in which order. None asks for nothing in particular.

    Attributes:
        uplink: a name, `OTHER` or `PROBE`.
        client, to: networks of the client and of the destination.
        port: the destination's.
        protocol: number; that of ICMP stands for ICMPv6 as well.
        find: part of an address, port, state, name of a protocol or uplink, in small letters.
        sort: most bytes first, oldest first, or by client or uplink; None for the kernel's order.
        limit: how many are listed at most; what they add up to counts all.
        offset: how many are left out before the first that is listed; with it, a page is asked for.
    """

    uplink: str | None = None
    client: IPNetwork | None = None
    to: IPNetwork | None = None
    port: int | None = None
    protocol: int | None = None
    find: str | None = None
    sort: SortKey | None = None
    limit: int | None = None
    offset: int | None = None


def flow_query_of(words: Mapping[str, str]) -> FlowQuery:
    """Read what somebody asks for: uplink, client, to, port, proto, find, sort, limit, offset.

    Raises:
        ValueError: a word makes no sense; the text says what was expected.
    """
    if unknown := words.keys() - {"uplink", "client", "to", "port", "proto", "find", "sort", "limit", "offset"}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return FlowQuery(
        uplink=words.get("uplink"),
        client=_network("client", words.get("client")),
        to=_network("to", words.get("to")),
        port=_number("port", words.get("port"), 65535),
        protocol=_protocol(words.get("proto")),
        find=_part(words.get("find")),
        sort=_sort(words.get("sort")),
        limit=_number("limit", words.get("limit"), 10**9),
        offset=_number("offset", words.get("offset"), 10**9),
    )


def _part(text: str | None) -> str | None:
    if text is not None and len(text) > LONGEST_FIND:
        raise ValueError(f"find: expected at most {LONGEST_FIND} characters, got {len(text)}")
    return text.lower() if text else None


def _network(key: str, text: str | None) -> IPNetwork | None:
    if text is None:
        return None
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{key}: expected an address or network, such as 192.168.1.0/24, got {text!r}") from None


def _number(key: str, text: str | None, most: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise ValueError(f"{key}: expected a number from 0 to {most}, got {text!r}")
    return int(text)


def _protocol(text: str | None) -> int | None:
    if text is None or text.lower() in PROTOCOLS:
        return None if text is None else PROTOCOLS[text.lower()]
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255):
        raise ValueError(f"proto: expected a number up to 255 or one of {', '.join(PROTOCOLS)}, got {text!r}")
    return int(text)


def _sort(text: str | None) -> SortKey | None:
    if text is None:
        return None
    for key in SORT_KEYS:
        if key == text:
            return key
    raise ValueError(f"sort: expected one of {', '.join(SORT_KEYS)}, got {text!r}")


class Totals:
    """Adds up connections by uplink while they pass.

    Args:
        names: every uplink that is told of even when it has none.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sums = {name: [0, 0, 0, 0] for name in names}

    def add(self, flow: Flow, uplink: str) -> None:
        """Count one connection."""
        sums = self._sums.get(uplink)
        if sums is None:
            sums = self._sums[uplink] = [0, 0, 0, 0]
        sums[0] += 1
        up, down = flow.bytes_up, flow.bytes_down
        if up is not None and down is not None:
            sums[1] += 1
            sums[2] += up
            sums[3] += down

    @property
    def number(self) -> int:
        """How many were counted."""
        return sum(count for count, _, _, _ in self._sums.values())

    def rows(self) -> tuple[Total, ...]:
        """Return what was counted, an entry for each uplink; bytes are None where no connection had numbers."""
        return tuple(
            Total(
                uplink=name,
                connections=count,
                bytes_up=up if counted else None,
                bytes_down=down if counted else None,
            )
            for name, (count, counted, up, down) in self._sums.items()
        )


def listed(
    flows: Iterable[Flow], wanted: FlowQuery, names: Mapping[int, str], totals: Totals, probes: Pairs = ()
) -> Iterator[FlowRow]:
    """Yield the connections that are wanted, in the order that is wanted, and count them.

    Without an order they come while they are read.

    Args:
        flows: all connections.
        wanted: which.
        names: uplinks by mark.
        totals: where they are added up; complete once the last one was yielded.
        probes: the ends that probes have.
    """
    found = _matching(flows, wanted, names, totals, probes)
    first = wanted.offset or 0
    end = None if wanted.limit is None else first + wanted.limit
    if wanted.sort is not None and wanted.limit != 0:
        rows, key = starmap(_row, found), order(wanted.sort)
        yield from (sorted(rows, key=key) if end is None else heapq.nsmallest(end, rows, key=key))[first:]
        return
    # Those behind the last that is listed are counted.
    for number, (flow, uplink) in enumerate(found):
        if number >= first and (end is None or number < end):
            yield _row(flow, uplink)


_made: Final = partial(tuple.__new__, FlowRow)


def _row(flow: Flow, uplink: str) -> FlowRow:
    # The class's own constructor would take twice as long.
    return _made((*flow, uplink))


def _matching(
    flows: Iterable[Flow], wanted: FlowQuery, names: Mapping[int, str], totals: Totals, probes: Pairs
) -> Iterator[tuple[Flow, str]]:
    tests, add = list(_tests(wanted)), totals.add
    has_part = None if wanted.find is None else _finder(wanted.find)
    for flow in flows:
        mark = flow.mark
        uplink = names.get(mark, OTHER)
        if not mark and (flow.client, flow.destination) in probes:
            uplink = PROBE
        if wanted.uplink not in (None, uplink) or (tests and not all(test(flow) for test in tests)):
            continue
        if has_part is not None and not has_part(flow, uplink):
            continue
        add(flow, uplink)
        yield flow, uplink


def _tests(wanted: FlowQuery) -> Iterator[Callable[[Flow], bool]]:
    if wanted.port is not None:
        yield lambda flow: flow.port == wanted.port
    if wanted.protocol is not None:
        numbers = {wanted.protocol, PROTOCOLS["icmpv6"]} if wanted.protocol == PROTOCOLS["icmp"] else {wanted.protocol}
        yield lambda flow: flow.protocol in numbers
    if wanted.client is not None:
        clients = _Inside(wanted.client)
        yield lambda flow: clients[flow.client]
    if wanted.to is not None:
        destinations = _Inside(wanted.to)
        yield lambda flow: destinations[flow.destination]


def _finder(part: str) -> Callable[[Flow, str], bool]:
    """Return what tells whether a connection has a text as part of what people read of it."""
    has = _Holding(part)
    ports = frozenset(port for port in range(1 << 16) if part in str(port)) if part.isdecimal() else frozenset[int]()
    protocols = {number for name, number in PROTOCOLS.items() if part in name}
    ends = ":" in part

    def test(flow: Flow, uplink: str) -> bool:
        return (
            has[flow.client]
            or has[flow.destination]
            or has[uplink]
            or has[flow.state]
            or flow.protocol in protocols
            or has[flow.reply_source]
            or has[flow.reply_destination]
            or (bool(ports) and (flow.port in ports or flow.client_port in ports))
            or (ends and (part in f"{flow.client}:{flow.client_port} {flow.destination}:{flow.port}"))
        )

    return test


class _Holding(dict[str | None, bool]):
    """Whether texts have a part, each looked at once."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def __missing__(self, text: str | None) -> bool:
        self[text] = found = text is not None and self._part in text.lower()
        return found


class _Inside(dict[str, bool]):
    """Whether addresses lie in a network, each computed once."""

    def __init__(self, network: IPNetwork) -> None:
        super().__init__()
        self._network = network

    def __missing__(self, text: str) -> bool:
        self[text] = inside = ip_address(text) in self._network
        return inside


class _Places(dict[str, int]):
    """Addresses as numbers, IPv4 before IPv6."""

    def __missing__(self, text: str) -> int:
        address = ip_address(text)
        self[text] = place = address.version << 128 | int(address)
        return place


_BY_NUMBER: Final[Mapping[SortKey, Callable[[FlowRow], int]]] = {
    "bytes": lambda row: -(row.bytes_up or 0) - (row.bytes_down or 0),
    "age": lambda row: -int(1000 * (row.age or 0)),
}


def order(sort: SortKey) -> Callable[[FlowRow], int | tuple[int | str, ...]]:
    """Return the key to sort rows by: most bytes first, oldest first, or by client or uplink."""
    places = _Places()
    match sort:
        case "bytes" | "age":
            return _BY_NUMBER[sort]
        case "client":
            return lambda row: (places[row.client], row.destination, row.port or 0)
        case "uplink":
            return lambda row: (row.uplink, places[row.client])
        case _:
            assert_never(sort)


def ordered(rows: Sequence[FlowRow], sort: SortKey) -> list[int]:
    """Return the places of rows in the order of the keys of `order`; tens of thousands in a third of the time.

    What makes up a key is few texts, again and again. Each has its rank, and a key is one number of these.
    """
    keys = _numbers(rows, sort)
    return sorted(range(len(rows)), key=keys.__getitem__)


def _numbers(rows: Sequence[FlowRow], sort: SortKey) -> list[int]:
    match sort:
        case "bytes" | "age":
            return [*map(_BY_NUMBER[sort], rows)]
        case "client" | "uplink":
            places = _Places()
            clients = _ranks({row.client for row in rows}, places.__getitem__)
        case _:
            assert_never(sort)
    if sort == "uplink":
        uplinks, many = _ranks({row.uplink for row in rows}), len(clients)
        return [uplinks[row.uplink] * many + clients[row.client] for row in rows]
    ends = _ranks({row.destination for row in rows})
    many = len(ends)
    return [(clients[row.client] * many + ends[row.destination] << _PORT_BITS) + (row.port or 0) for row in rows]


_PORT_BITS: Final = 16


def _ranks(texts: Collection[str], key: Callable[[str], int] | None = None) -> dict[str, int]:
    """Return the place of each text among all of them."""
    return {text: rank for rank, text in enumerate(sorted(texts, key=key))}
