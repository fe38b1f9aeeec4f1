"""However messages of connections look, decoding by a known layout gives what walking them gives."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.net import Family
from polywan.core.status.flow_list import SORT_KEYS, FlowQuery, SortKey, Totals, listed, order, ordered
from polywan.core.world.conntrack import Flow
from polywan.kernel.conntrack.decode import Decoder, Layouts
from polywan.kernel.netlink.socket import attribute

NESTED = 0x8000
MASK = 0x3F00
NOW = 1_800_000_000_000_000_000

u8, u16, u32 = (st.binary(min_size=n, max_size=n) for n in (1, 2, 4))
u64 = st.binary(min_size=8, max_size=8)


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A connection as the kernel would show it, with whatever parts; sometimes in another order."""
    af, first, size = draw(st.sampled_from([(2, 1, 4), (10, 3, 16)]))
    address = st.binary(min_size=size, max_size=size)

    def ends(kind: int) -> bytes:
        protocol = [attribute(1, draw(u8))]
        if draw(st.booleans()):
            protocol += [attribute(2, draw(u16)), attribute(3, draw(u16))]
        return nest(
            kind, nest(1, attribute(first, draw(address)), attribute(first + 1, draw(address))), nest(2, *protocol)
        )

    some = [
        ends(2),
        attribute(3, draw(u32)),
        attribute(7, draw(u32)),
        nest(9, attribute(1, draw(u64)), attribute(2, draw(u64))),
        nest(10, attribute(1, draw(u64)), attribute(2, draw(u64))),
        nest(20, attribute(1, draw(u64))),
        nest(4, nest(1, attribute(1, draw(u8)), attribute(2, draw(u8)))),
        attribute(8, draw(u32)),
        attribute(12, draw(u32)),
        attribute(5, draw(st.binary(max_size=9))),
    ]
    parts = draw(st.lists(st.sampled_from(some), unique=True))
    return bytes((af, 0, 0, 0)) + ends(1) + b"".join(draw(st.permutations(parts)) if draw(st.booleans()) else parts)


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """The same message with a few bytes changed, cut off or added."""
    data = bytearray(body)
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


VALUES = {
    (1, 2, 1): 1, (1, 2, 2): 2, (1, 2, 3): 2, (2, 2, 2): 2, (2, 2, 3): 2, (3,): 4, (4, 1, 1): 1, (7,): 4, (8,): 4,
    (9, 1): 8, (9, 2): 8, (10, 1): 8, (10, 2): 8, (20, 1): 8,
}  # fmt: skip
ADDRESSES = {2: (1, 2, 4), 10: (3, 4, 16)}
STATES = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
]


def leaves(
    data: bytes, sizes: dict[tuple[int, ...], int], path: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4 or length > len(data):
            return
        here = (*path, kind & 0x3FFF)
        if sizes.get(here) == length - 4:
            yield here, data[4:length]
        elif any(known[: len(here)] == here and known != here for known in sizes):
            yield from leaves(data[4:length], sizes, here)
        data = data[(length + 3) & ~3 :]


def reference(body: bytes) -> Flow | None:
    """The same answer by the plainest means."""
    if len(body) < 4 or body[0] not in ADDRESSES:
        return None
    source, destination, size = ADDRESSES[body[0]]
    sizes = VALUES | {(side, 1, end): size for side in (1, 2) for end in (source, destination)}
    found = dict(leaves(body[4:], sizes))

    def number(*path: int) -> int | None:
        return int.from_bytes(found[path], "big") if path in found else None

    def text(side: int, end: int) -> str | None:
        # ipaddress and inet_ntop(3) write IPv4-mapped addresses differently.
        packed = found.get((side, 1, end))
        return None if packed is None else str(ip_address(packed))

    protocol, client, to = number(1, 2, 1), text(1, source), text(1, destination)
    if protocol is None or client is None or to is None:
        return None
    state, status, start = number(4, 1, 1), number(3), number(20, 1)
    word = ""
    fast = int(bool((status or 0) & 1 << 14))
    if fast and protocol == 6:
        state = 3
    if protocol == 6 and state is not None and state < len(STATES):
        word = STATES[state]
    elif status is not None:
        word = "UNREPLIED" if not status & 2 else "ASSURED" if status & 4 else ""
    return Flow(
        family=Family.V4 if size == 4 else Family.V6,
        protocol=protocol,
        client=client,
        client_port=number(1, 2, 2),
        destination=to,
        port=number(1, 2, 3),
        reply_source=text(2, source),
        reply_source_port=number(2, 2, 2),
        reply_destination=text(2, destination),
        reply_destination_port=number(2, 2, 3),
        state=word,
        mark=(number(8) or 0) & MASK,
        age=max(0, NOW - start) // 1_000_000 / 1000 if start else None,
        timeout=number(7),
        bytes_up=number(9, 2),
        bytes_down=number(10, 2),
        packets_up=number(9, 1),
        packets_down=number(10, 1),
        fast=fast,
    )


def plain(flow: Flow | None) -> Flow | None:
    """The flow with its addresses spelled as ipaddress spells them."""
    if flow is None:
        return None

    def spelled(text: str | None) -> str | None:
        return None if text is None else str(ip_address(text))

    return flow._replace(
        client=str(ip_address(flow.client)),
        destination=str(ip_address(flow.destination)),
        reply_source=spelled(flow.reply_source),
        reply_destination=spelled(flow.reply_destination),
    )


@given(st.data(), st.lists(bodies(), min_size=1, max_size=4))
def test_a_known_layout_and_a_walk_give_the_same_connection(data: st.DataObject, originals: list[bytes]) -> None:
    warm, mark = Decoder(MASK, NOW), Layouts().mark
    again = [data.draw(mutated(body)) for body in originals for _ in range(3)]
    for body in [*originals, *originals, *again]:
        found = warm.flow(body)
        assert found == Decoder(MASK, NOW).flow(body)
        assert plain(found) == reference(body)
        if found is not None:
            assert mark(body) & MASK == found.mark


@given(st.lists(st.binary(max_size=120), max_size=8))
def test_no_bytes_make_the_decoder_raise(messages: list[bytes]) -> None:
    decoder, layouts = Decoder(MASK, NOW), Layouts()
    for body in messages:
        decoder.flow(body)
        layouts.mark(body)


flows = st.builds(
    Flow,
    family=st.just(Family.V4),
    protocol=st.sampled_from([1, 6, 17]),
    client=st.sampled_from(["10.0.0.2", "10.0.0.10", "10.0.1.1", "2001:db8::1"]),
    client_port=st.just(1),
    destination=st.sampled_from(["192.0.2.1", "198.51.100.1"]),
    port=st.sampled_from([None, 53, 443, 65535]),
    mark=st.sampled_from([0, 0x100, 0x200]),
    age=st.none() | st.floats(0, 1e6),
    bytes_up=st.none() | st.integers(0, 100),
    bytes_down=st.none() | st.integers(0, 100),
)
NAMES = {0x100: "fibre", 0x200: "lte"}


@given(st.lists(flows, max_size=30), st.sampled_from(["bytes", "age", "client", "uplink"]), st.integers(0, 40))
def test_a_limit_keeps_the_first_of_the_order_and_counts_all(many: list[Flow], sort: str, limit: int) -> None:
    key = next(k for k in ("bytes", "age", "client", "uplink") if k == sort)
    totals = Totals(NAMES.values())
    some = list(listed(many, FlowQuery(sort=key, limit=limit), NAMES, totals))
    everything = sorted(listed(many, FlowQuery(), NAMES, Totals([])), key=order(key))
    assert some == everything[:limit]
    assert sum(total.connections for total in totals.rows()) == len(many)


@given(st.lists(flows, max_size=30), st.sampled_from(SORT_KEYS))
def test_the_order_of_rows_is_that_of_their_keys(many: list[Flow], sort: SortKey) -> None:
    rows = list(listed(many, FlowQuery(), NAMES, Totals([])))
    assert [rows[place] for place in ordered(rows, sort)] == sorted(rows, key=order(sort))
