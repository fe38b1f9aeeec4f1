"""Sockets that belong to one uplink before their first packet."""

from __future__ import annotations

import errno
import os
import socket
import struct
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
    try:
        return _open(family, kind, protocol, interface, mark)
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise SocketDeniedError(error.errno, f"{os.strerror(error.errno)}; {_REMEDIES[error.errno]}") from error


def _open(family: Family, kind: socket.SocketKind, protocol: int, interface: str, mark: int) -> socket.socket:
    # The kernel unbinds for an empty name and cuts a long one: neither may pass for the uplink's.
    socket.if_nametoindex(interface)
    domain = socket.AF_INET if family is Family.V4 else socket.AF_INET6
    sock = socket.socket(domain, kind, protocol)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        if mark:
            set_mark(sock, mark)
    except BaseException:
        sock.close()
        raise
    return sock


def set_mark(sock: socket.socket, mark: int) -> None:
    """Make the socket's packets carry `mark`, 32 bits.

    Raises:
        OSError: EPERM without CAP_NET_ADMIN or CAP_NET_RAW.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark & 0xFFFF_FFFF))


def endpoint(address: IPAddress, port: int = 0) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address as the socket calls want it; the bound device gives link-local ones their scope."""
    return (str(address), port) if family_of(address) is Family.V4 else (str(address), port, 0, 0)
