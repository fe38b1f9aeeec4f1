"""Clients that keep their uplink: read from nftables' maps, and let go of. Straight by nfnetlink, not by libnftables.

The library reads every set of every table before it deletes an element, which takes half a second beside a list of
50 000 prefixes, and it would keep the daemon's own transactions waiting meanwhile.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import Family
from polywan.core.ruleset.model import TABLE
from polywan.core.world.affinity import AffinityEntry, map_of
from polywan.kernel.netlink.socket import (
    NESTED,
    NETFILTER,
    NetlinkSocket,
    Request,
    attribute,
    attributes,
    text,
    u32,
    walk,
)

# linux/netfilter/nf_tables.h.
_SUBSYSTEM: Final = 10
_GET_SET, _GET_ELEMENTS, _DELETE_ELEMENTS = (_SUBSYSTEM << 8 | number for number in (10, 13, 14))
_TABLE, _NAME, _ELEMENTS = 1, 2, 3
_KEY, _DATA, _EXPIRATION, _VALUE, _ELEMENT = 1, 2, 5, 1, 1
_INET: Final = b"\x01\0\0\0"  # struct nfgenmsg
_OURS: Final = attribute(_TABLE, TABLE.split()[1].encode() + b"\0")
_MILLISECONDS: Final = struct.Struct(">Q")

_AT_ONCE: Final = 512
"""Elements in one transaction; an attribute has room for 64 KiB."""


class AffinityMaps:
    """The maps of our table whose names begin with ``affinity_``. Safe to use from several threads.

    The socket stays open, since a notification names its author by the socket's port (`kernel/notifications.py`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: NetlinkSocket | None = None

    def read(self) -> list[AffinityEntry]:
        """Return every client in every map; none when there is no table.

        Raises:
            KernelError: the kernel refused.
        """
        with self._lock:
            netlink = self._open()
            names = [attributes(body, 4).get(_NAME, b"") for body in _dump(netlink, _GET_SET, _INET + _OURS)]
            found: list[AffinityEntry] = []
            for name in map(text, names):
                if (known := map_of(name)) is not None:
                    bodies = _dump(netlink, _GET_ELEMENTS, _INET + _OURS + attribute(_NAME, name.encode() + b"\0"))
                    found += (kept for body in bodies for kept in decode(body, name, *known))
        return found

    def forget(self, doomed: Iterable[AffinityEntry]) -> int:
        """Delete these; return how many were there still.

        Raises:
            KernelError: the kernel refused.
        """
        keys: dict[str, list[bytes]] = {}
        for kept in doomed:
            keys.setdefault(kept.map, []).append(_key(kept))
        with self._lock:
            netlink = self._open()
            return sum(
                _delete(netlink, name, some[start : start + _AT_ONCE])
                for name, some in keys.items()
                for start in range(0, len(some), _AT_ONCE)
            )

    def close(self) -> None:
        """Release the socket."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _open(self) -> NetlinkSocket:
        if self._socket is None:
            self._socket = NetlinkSocket(NETFILTER)
        return self._socket


def decode(body: bytes, name: str, family: Family, policy: str) -> Iterator[AffinityEntry]:
    """Yield the clients of one message of a map's elements; what makes no sense is left out."""
    elements = attributes(body, 4).get(_ELEMENTS, b"")
    size = family.host_length // 8
    for kind, start, end in walk(elements, 0, len(elements)):
        found = attributes(elements[start:end]) if kind == _ELEMENT else {}
        key, data = (attributes(found.get(part, b"")).get(_VALUE, b"") for part in (_KEY, _DATA))
        if len(key) not in (size, 2 * size) or len(data) != 4:
            continue
        remaining = found.get(_EXPIRATION, b"")
        yield AffinityEntry(
            map=name,
            family=family,
            policy=policy,
            client=ip_address(key[:size]),
            server=ip_address(key[size:]) if len(key) > size else None,
            mark=u32(data),
            expires=_MILLISECONDS.unpack(remaining)[0] / 1000 if len(remaining) == _MILLISECONDS.size else 0.0,
        )


def _dump(netlink: NetlinkSocket, kind: int, body: bytes) -> list[bytes]:
    try:
        return [message.body for message in netlink.snapshot(kind, body)]
    except KernelError as e:
        # Table or map went away.
        if e.errno == errno.ENOENT:
            return []
        raise


def _key(kept: AffinityEntry) -> bytes:
    return kept.client.packed + (kept.server.packed if kept.server is not None else b"")


def _delete(netlink: NetlinkSocket, name: str, keys: Sequence[bytes]) -> int:
    """Delete in one transaction; when one element is gone already the kernel refuses all, so halves are tried."""
    elements = b"".join(attribute(_ELEMENT | NESTED, attribute(_KEY | NESTED, attribute(_VALUE, key))) for key in keys)
    body = _INET + _OURS + attribute(_NAME, name.encode() + b"\0") + attribute(_ELEMENTS | NESTED, elements)
    refused = netlink.transaction(_SUBSYSTEM, Request(_DELETE_ELEMENTS, 0, body))
    if refused is None:
        return len(keys)
    if refused.errno != errno.ENOENT:
        raise KernelError("forget clients", refused.errno, refused.text)
    if len(keys) == 1:
        return 0
    half = len(keys) // 2
    return _delete(netlink, name, keys[:half]) + _delete(netlink, name, keys[half:])
