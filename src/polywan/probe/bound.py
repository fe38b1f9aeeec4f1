"""Sockets that belong to one uplink before their first packet."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from polywan.core.net import Family, IPAddress, family_of

REFUSED: Final = (OSError, ValueError, OverflowError)
"""What socket calls raise: the kernel's refusals, and Python's for names and numbers no kernel would take."""

_REMEDIES: Final = {
    errno.EPERM: "grant CAP_NET_RAW and CAP_NET_ADMIN",
    errno.EACCES: "grant CAP_NET_RAW and CAP_NET_ADMIN",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE=)",
    errno.ENFILE: "raise fs.file-max",
}


INTERACTIVE: Final = 6
"""TC_PRIO_INTERACTIVE (linux/pkt_sched.h): the highest that needs no privilege."""

ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() forgets the connection, with a reset if it was made (socket(7))."""

# IP_RECVERR (ip(7)) and IPV6_RECVERR (ipv6(7)): the socket module does not name them.
RECVERR: Final = {Family.V4: (socket.IPPROTO_IP, 11), Family.V6: (socket.IPPROTO_IPV6, 25)}
"""Level and option that keep ICMP errors, with their whole text, in the socket's error queue."""


class SocketDeniedError(OSError):
    """This process may not have the socket, whatever the state of the link; the text says what allows it."""


def bound_socket(family: Family, kind: socket.SocketKind, protocol: int, interface: str, mark: int) -> socket.socket:
    """Return a non-blocking socket that sends by `interface` only, with `mark` on its packets (socket(7)).

    Mark 0 is what every socket has; leaving it alone lets it work without privileges.

    Raises:
        SocketDeniedError: privileges are missing or open files have run out.
        OSError: ENODEV when the interface is gone, EAFNOSUPPORT without IPv6.
        ValueError: no interface can have that name.
    """
    with _explained():
        return _open(family, kind, protocol, interface, mark)


def link_socket(protocol: int, interface: str, mark: int) -> socket.socket:
    """Return a non-blocking packet socket of one interface for one EtherType (packet(7)).

    Raises:
        SocketDeniedError, OSError, ValueError: as `bound_socket`.
    """
    # A systemd unit that does not name the family gets the answer of a kernel without it.
    with _explained({errno.EAFNOSUPPORT: "allow packet sockets (RestrictAddressFamilies=AF_PACKET)"}):
        socket.if_nametoindex(interface)
        # Protocol 0 receives nothing: until it is bound, the socket would hear every interface.
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        try:
            sock.settimeout(0)
            prefer(sock)
            if mark:
                set_mark(sock, mark)
            sock.bind((interface, protocol))
        except BaseException:
            sock.close()
            raise
        return sock


@contextmanager
def _explained(more: Mapping[int, str] = MappingProxyType({})) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        remedy = _REMEDIES.get(number) or more.get(number)
        if remedy is None:
            raise
        raise SocketDeniedError(number, f"{os.strerror(number)}; {remedy}") from error


def _open(family: Family, kind: socket.SocketKind, protocol: int, interface: str, mark: int) -> socket.socket:
    # The kernel unbinds for an empty name and cuts a long one: neither may pass for the uplink's.
    socket.if_nametoindex(interface)
    domain = socket.AF_INET if family is Family.V4 else socket.AF_INET6
    sock = socket.socket(domain, kind, protocol)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        prefer(sock)
        if mark:
            set_mark(sock, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def prefer(sock: socket.socket, priority: int = INTERACTIVE) -> None:
    """Have the queues of this box that know priorities (pfifo_fast, prio, htb) send its packets before bulk traffic.

    Nothing of that is in the packet: beyond this box probes are what other packets are.

    Raises:
        OSError: EPERM for more than `INTERACTIVE` without CAP_NET_ADMIN.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)


def set_mark(sock: socket.socket, mark: int) -> None:
    """Make the socket's packets carry `mark`, 32 bits.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN or CAP_NET_RAW.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark & 0xFFFF_FFFF))


@lru_cache(maxsize=1024)
def endpoint(address: IPAddress, port: int = 0) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address as the socket calls want it; the bound device gives link-local ones their scope."""
    return (str(address), port) if family_of(address) is Family.V4 else (str(address), port, 0, 0)
