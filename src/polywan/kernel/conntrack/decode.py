"""Tracked connections from ctnetlink's messages, tens of thousands of them in a fraction of a second. Pure.

Walking a message attribute by attribute costs more than everything else together, and messages of a kind have
their attributes in the same places. So a message is walked once, and what was found (`Layout`) serves for every
further one whose attribute headers are equal, byte by byte. Equal headers lead the walk to the same places, so
that both ways give the same answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, Final, TypeAlias

from polywan.core.net import Family
from polywan.core.world.conntrack import Flow
from polywan.kernel.netlink.socket import walk

_HEADER: Final = 4  # struct nfgenmsg; its first byte is the address family

_Path: TypeAlias = tuple[int, ...]

_MARK: Final = 12
_COMMON: Final[dict[_Path, tuple[int, str]]] = {
    # linux/netfilter/nfnetlink_conntrack.h: numbers of nested attributes; place among the values, and its format.
    (1, 2, 1): (0, "B"),  # protocol
    (1, 2, 2): (2, "H"),  # client's port
    (1, 2, 3): (4, "H"),  # destination's port
    (2, 2, 2): (6, "H"),  # ports of the reply direction
    (2, 2, 3): (8, "H"),
    (3,): (9, "I"),  # status
    (4, 1, 1): (10, "B"),  # state of TCP
    (7,): (11, "I"),  # timeout
    (8,): (_MARK, "I"),
    (9, 1): (13, "Q"),  # packets and bytes, original direction
    (9, 2): (14, "Q"),
    (10, 1): (15, "Q"),  # packets and bytes, reply direction
    (10, 2): (16, "Q"),
    (20, 1): (17, "Q"),  # start, nanoseconds of the wall clock
}
_FIELDS: Final[dict[int, dict[_Path, tuple[int, str]]]] = {
    AF_INET: _COMMON | {(1, 1, 1): (1, "4s"), (1, 1, 2): (3, "4s"), (2, 1, 1): (5, "4s"), (2, 1, 2): (7, "4s")},
    AF_INET6: _COMMON | {(1, 1, 3): (1, "16s"), (1, 1, 4): (3, "16s"), (2, 1, 3): (5, "16s"), (2, 1, 4): (7, "16s")},
}
_COUNT: Final = 18
_NEEDED: Final = (0, 1, 3)  # protocol, client, destination
_NESTS: Final = {path[:depth] for fields in _FIELDS.values() for path in fields for depth in range(1, len(path))}

_ALL: Final = b"\xff\xff\xff\xff"
_MOST_LAYOUTS: Final = 256

_TCP: Final = 6
_TCP_STATES: Final = (
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
)
_SEEN_REPLY, _ASSURED = 2, 4
_OFFLOADED: Final = 14
OFFLOADED: Final = 1 << _OFFLOADED
"""Bit of the status (IPS_OFFLOAD): the connection is in a flowtable. The kernel then shows no timeout and no state."""

ESTABLISHED: Final = 3
"""State of TCP (linux/netfilter/nf_conntrack_tcp.h); no other TCP gets into a flowtable."""

_STATES: Final = tuple(
    "UNREPLIED" if not status & _SEEN_REPLY else "ASSURED" if status & _ASSURED else "" for status in range(8)
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields are in messages of one length whose bytes under `mask` are those of `headers`.

    `read` returns the fields' values in their order, None for those that are absent.
    """

    mask: int
    headers: int
    family: Family | None
    read: Callable[[bytes], tuple[Any, ...]]


def layout_of(body: bytes) -> Layout:
    """Walk a message and return what was found; `family` is None when it is no connection of IPv4 or IPv6."""
    af = body[0] if len(body) >= _HEADER else 0
    wanted = _FIELDS.get(af, {})
    found: dict[int, tuple[int, str]] = {}
    fixed = bytearray(len(body))
    fixed[:1] = b"\xff" * min(1, len(body))

    def visit(path: _Path, start: int, end: int) -> None:
        at = start
        for kind, begin, stop in walk(body, start, end):
            fixed[begin - 4 : begin] = _ALL
            at = (stop + 3) & ~3
            here = (*path, kind)
            if here in _NESTS:
                visit(here, begin, stop)
            elif here in wanted:
                place, form = wanted[here]
                if struct.calcsize(form) == stop - begin:
                    found[place] = (begin, form)
        if at + 4 <= end:
            # What ended the walk is a header, too.
            fixed[at : at + 4] = _ALL

    visit((), _HEADER, len(body))
    mask = int.from_bytes(fixed, "little")
    complete = all(place in found for place in _NEEDED)
    family = None if not complete else Family.V4 if af == AF_INET else Family.V6
    return Layout(mask, int.from_bytes(body, "little") & mask, family, _reader(found))


def _reader(found: dict[int, tuple[int, str]]) -> Callable[[bytes], tuple[Any, ...]]:
    order = sorted(found, key=lambda place: found[place])
    form, at = ">", 0
    for place in order:
        begin, kind = found[place]
        form += f"{begin - at}x{kind}"
        at = begin + struct.calcsize(kind)
    unpack = struct.Struct(form).unpack_from
    # What is absent takes the None behind the values that are there.
    pick = itemgetter(*(order.index(place) if place in found else len(order) for place in range(_COUNT)))
    return lambda body: pick((*unpack(body), None))


class Layouts:
    """The layouts met so far, of one dump."""

    def __init__(self) -> None:
        self._known: dict[int, list[Layout]] = {}
        self._room = _MOST_LAYOUTS

    def of(self, body: bytes) -> Layout:
        """Return the message's layout: a known one, or one found by walking."""
        number = int.from_bytes(body, "little")
        for layout in self._known.get(len(body), ()):
            if number & layout.mask == layout.headers:
                return layout
        layout = layout_of(body)
        if self._room:
            self._room -= 1
            self._known.setdefault(len(body), []).append(layout)
        return layout

    def mark(self, body: bytes) -> int:
        """Return an entry's mark; 0 when it has none."""
        return self.of(body).read(body)[_MARK] or 0


_flow: Final = partial(tuple.__new__, Flow)


class _Texts(dict[bytes, str]):
    """Addresses as text, each written once."""

    def __missing__(self, packed: bytes) -> str:
        text = self[packed] = inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
        return text


class Decoder:
    """Decodes the messages of one dump.

    Args:
        mask: bits of the mark that are ours.
        now: nanoseconds of the wall clock.
    """

    def __init__(self, mask: int, now: int) -> None:
        self._mask = mask
        self._now = now
        self._layout_of = Layouts().of
        self._texts = _Texts()

    def flow(self, body: bytes) -> Flow | None:
        """Decode one message; None when it makes no sense."""
        layout = self._layout_of(body)
        family = layout.family
        if family is None:
            return None
        (
            protocol, client, client_port, to, port, reply_from, reply_from_port, reply_to, reply_to_port,
            status, state, timeout, mark, packets_up, bytes_up, packets_down, bytes_down, start,
        ) = layout.read(body)  # fmt: skip
        texts = self._texts
        fast = 0 if status is None else status >> _OFFLOADED & 1
        if fast and protocol == _TCP:
            state = ESTABLISHED
        if protocol == _TCP and state is not None and state < len(_TCP_STATES):
            word = _TCP_STATES[state]
        else:
            word = "" if status is None else _STATES[status & 7]
        # The class's own constructor would take three times as long.
        return _flow((
            family, protocol, texts[client], client_port, texts[to], port,
            None if reply_from is None else texts[reply_from], reply_from_port,
            None if reply_to is None else texts[reply_to], reply_to_port,
            word, (mark or 0) & self._mask, max(0, self._now - start) // 1_000_000 / 1000 if start else None, timeout,
            bytes_up, bytes_down, packets_up, packets_down, fast,
        ))  # fmt: skip
