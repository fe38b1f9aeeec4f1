"""Names under which the page may be asked for: a name that somebody else may point at us (DNS rebinding) is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]{2,45})\]|(?P<other>[a-z0-9_.-]{1,254}))(?::(?P<port>[0-9]{1,5}))?"
)

LOOPBACK_NAME: Final = "localhost"


class Authority(NamedTuple):
    """A host and its port, as in a URL (RFC 3986, 3.2)."""

    host: Address | str
    port: int | None


class Known(Enum):
    """As what a name is ours."""

    LOOPBACK = "loopback"
    ADDRESS = "address"
    NAME = "name"


def authority(text: str) -> Authority | None:
    """Return what a header says, None if it is no host: upper case and a trailing dot mean the same."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 65536:
        return None
    try:
        if found["six"] is not None:
            return Authority(IPv6Address(found["six"]), port)
        return Authority(IPv4Address(found["other"]), port)
    except ValueError:
        pass
    name = (found["other"] or "").removesuffix(".")
    # What ends in a number is an IPv4 address, or nothing (WHATWG URL, 4.4).
    if _NAME.fullmatch(name) is None or name.rpartition(".")[2].isdecimal():
        return None
    return Authority(name, port)


def host_name(text: str) -> str | None:
    """Return a name as `authority` has it, None for an address, a name with a port and what is no name."""
    found = authority(text)
    return found.host if found is not None and isinstance(found.host, str) and found.port is None else None


def known(headers: Sequence[str], names: Collection[str], local: Address | None) -> tuple[Authority, Known] | None:
    """Return whom a request asks for, None where that is not us.

    Args:
        headers: the fields `Host` of the request.
        names: names that are ours, as `host_name` returns them.
        local: our end of the connection.
    """
    asked = authority(headers[0]) if len(headers) == 1 else None
    if asked is None:
        return None
    if isinstance(asked.host, str):
        if asked.host == LOOPBACK_NAME:
            return asked, Known.LOOPBACK
        return (asked, Known.NAME) if asked.host in names else None
    if asked.host.is_loopback:
        return asked, Known.LOOPBACK
    return (asked, Known.ADDRESS) if asked.host == local else None


def without_zone(text: str) -> Address:
    """Return an address as a socket has it, without the device of a link-local one.

    Raises:
        ValueError: it is no address.
    """
    return ip_address(text.partition("%")[0])
