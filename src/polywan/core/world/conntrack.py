"""A tracked connection, as the kernel shows it, and what can be told from one alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from polywan.core.net import Family


class Flow(NamedTuple):
    """A tracked connection; a tuple, since there are tens of thousands of them at once.

    Attributes:
        protocol: number (IANA), 6 is TCP.
        client, destination: ends as the client knows them (original direction), addresses as text (inet_ntop(3)).
        client_port, port: None for protocols without ports.
        reply_source, reply_source_port: who answers; differs from the destination when that was translated (DNAT).
        reply_destination, reply_destination_port: whom the answer goes to; differs from the client when the
            source was translated (SNAT, masquerade).
        state: TCP's, as conntrack(8) prints it; of others UNREPLIED, ASSURED or nothing.
        mark: the connection mark's bits that are ours.
        age: seconds since it began; None when it began while nf_conntrack_timestamp was off.
        timeout: seconds until it is forgotten unless a packet comes.
        bytes_up, bytes_down, packets_up, packets_down: from the client and to it; None when it began while
            nf_conntrack_acct was off.
        fast: 1 when its packets take the fast path, of which the kernel tells no timeout; a number, as in documents.
    """

    family: Family
    protocol: int
    client: str
    client_port: int | None
    destination: str
    port: int | None
    reply_source: str | None = None
    reply_source_port: int | None = None
    reply_destination: str | None = None
    reply_destination_port: int | None = None
    state: str = ""
    mark: int = 0
    age: float | None = None
    timeout: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    packets_up: int | None = None
    packets_down: int | None = None
    fast: int = 0


_UNANSWERED: Final = frozenset({"SYN_SENT", "UNREPLIED"})


BLUR: Final = 0.002
"""Seconds after which ages, which are cut to milliseconds, tell what began before a moment from what began after it."""


def stray(ruled: float, flow: Flow) -> bool:
    """True for what may have no way back: begun before the rule set, untranslated, and never answered.

    So are connections whose first packet came while there was no rule set: the kernel does not translate them later
    (it does so before an entry is confirmed, or never), and a sender that repeats keeps the entry alive. A repeated
    packet may have got it a mark by now. TCP that was taken up in the middle then (nf_conntrack_tcp_loose) counts as
    established from its first packet on. Whoever needs no translation loses an entry that was worth nothing yet.
    So does a handshake under way: one from outside has no mark, and its answers would leave by main's uplink.

    Args:
        ruled: seconds since the rule set is there; at least `BLUR`.
        flow: the connection; one without an age began before polywan asked for ages.
    """
    if flow.age is not None and flow.age < ruled - BLUR / 2:
        return False
    forth = (flow.client, flow.client_port, flow.destination, flow.port)
    back = (flow.reply_destination, flow.reply_destination_port, flow.reply_source, flow.reply_source_port)
    unanswered = flow.state in _UNANSWERED or flow.packets_down == 0
    return flow.state == "SYN_RECV" or (unanswered and forth == back)


def translated_to(flow: Flow, addresses: Collection[str]) -> bool:
    """True for a connection whose source was translated to one of the addresses."""
    return flow.reply_destination != flow.client and flow.reply_destination in addresses
