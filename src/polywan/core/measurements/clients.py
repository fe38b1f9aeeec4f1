"""Count the bytes of clients from looks at connection tracking: what each connection has moved since the look before.

The kernel keeps a connection for a while after its last packet, TCP that was closed for 120 s, UDP with answers
likewise, so that a look each minute sees the last count of most. Others have ended with what they moved since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from polywan.core.net import IPNetwork
from polywan.core.status.tally import NO_BYTES, Bytes
from polywan.core.world.conntrack import Flow

THIS_MACHINE: Final = "this machine"
"""The client of the box's own connections, whatever address they have."""

OTHERS: Final = "others"
"""All clients for whom there is no row."""

MOST_COUNTED: Final = 100_000
"""Connections that are remembered from one look to the next: 15 MB. Those beyond are not counted."""

_SHIFT: Final = 64
_LOW: Final = (1 << _SHIFT) - 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What tells clients from servers.

    Attributes:
        own: addresses of this box.
        lans: networks of its links that are no uplinks.
        marks: uplinks by the mark of their connections.
    """

    own: Collection[str]
    lans: Sequence[IPNetwork]
    marks: Mapping[int, str]


@dataclass(slots=True)
class ClientCounter:
    """What was seen of connections at the last look. Changed by `look`.

    Attributes:
        known: bytes of each connection then, by what names it; None before the first look.
        connections: by uplink, at the last look.
        beyond: connections at the last look that were too many to count.
    """

    known: dict[int, int] | None = None
    connections: Mapping[str, int] = field(default_factory=dict)
    beyond: int = 0

    def look(self, flows: Iterable[Flow], around: Surroundings, running: float) -> dict[str, Bytes]:
        """Return the bytes of clients since the look before.

        Args:
            flows: all connections.
            around: what tells clients from servers.
            running: seconds since somebody counts; at the first look, older connections have moved bytes before.
        """
        before, seen = self.known, dict[int, int]()
        counts, moved, beyond = Counter[str](), dict[str, list[int]](), 0
        for flow in flows:
            name = around.marks.get(flow.mark)
            if name is None:
                continue
            counts[name] += 1
            if flow.bytes_up is None or flow.bytes_down is None:
                continue
            if len(seen) >= MOST_COUNTED:
                beyond += 1
                continue
            key = hash(flow[:9])
            seen[key] = flow.bytes_up << _SHIFT | flow.bytes_down
            up, down = _since(before, key, flow, running)
            if up or down:
                client, outward = client_of(flow, around)
                sums = moved.setdefault(client, [0, 0])
                sums[0] += down if outward else up
                sums[1] += up if outward else down
        self.known, self.connections, self.beyond = seen, counts, beyond
        return {client: Bytes(*sums) for client, sums in moved.items()}


def _since(before: Mapping[int, int] | None, key: int, flow: Flow, running: float) -> tuple[int, int]:
    up, down = flow.bytes_up or 0, flow.bytes_down or 0
    if before is None:
        return (up, down) if flow.age is not None and flow.age < running else (0, 0)
    known = before.get(key, 0)
    known_up, known_down = known >> _SHIFT, known & _LOW
    # Fewer than before are those of another connection between the same ends.
    return (up - known_up, down - known_down) if up >= known_up and down >= known_down else (up, down)


def client_of(flow: Flow, around: Surroundings) -> tuple[str, bool]:
    """Return the client on this side of the uplinks, and whether the connection goes outward.

    Of one that comes from outside it is the server: the end that uses the uplink. Without any translation, the end in
    one of our networks.
    """
    if flow.client in around.own:
        return THIS_MACHINE, True
    if flow.destination in around.own or flow.reply_source not in (None, flow.destination):
        server = flow.reply_source or flow.destination
        return (THIS_MACHINE if server in around.own else server), False
    translated = flow.reply_destination not in (None, flow.client)
    if not translated and not _inside(flow.client, around.lans) and _inside(flow.destination, around.lans):
        return flow.destination, False
    return flow.client, True


def _inside(address: str, lans: Sequence[IPNetwork]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in lan for lan in lans)


def added(sums: Mapping[str, Bytes], more: Mapping[str, Bytes], most: int) -> dict[str, Bytes]:
    """Return the sum of both, with at most so many clients: of the others, only those with least are together."""
    found = dict(sums)
    for client, one in more.items():
        known = found.get(client, NO_BYTES)
        found[client] = Bytes(known.rx + one.rx, known.tx + one.tx)
    if len(found) <= most:
        return found
    ranked = sorted(found, key=lambda client: (client == OTHERS, sum(found[client]), client))
    folded = ranked[: len(found) - most + (0 if OTHERS in found else 1)]
    rest = [found.pop(client) for client in (*folded, *([OTHERS] if OTHERS in found else []))]
    return {**found, OTHERS: Bytes(sum(one.rx for one in rest), sum(one.tx for one in rest))}
