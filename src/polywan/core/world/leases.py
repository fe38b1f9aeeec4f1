"""Read what DHCP clients wrote down of their leases: address, router, and until when. Pure; the text is a stranger's.

A router that is known from nowhere else may be taken from there: on Debian with two DHCP links, the second default
route is refused because it has the metric of the first. What a server sent comes through these files, so that nothing
of it is used but addresses, and whatever makes no sense is no lease.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address
from typing import Final

from polywan.core.net import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An IPv4 lease with a router.

    Attributes:
        link: name of the device; empty where the file does not tell.
        expires: Unix seconds; None where the file does not tell, as of a client that removes it in time.
        program: who wrote it: "dhclient", "dhcpcd", "systemd-networkd" or "NetworkManager".
        resolvers: that the server named.
    """

    link: str
    address: IPv4Address
    router: IPv4Address
    expires: float | None
    program: str
    resolvers: tuple[IPv4Address, ...] = field(default=(), compare=False)


LARGEST_LEASES: Final = 1 << 20
"""Bytes of a file that are looked at; dhclient adds a lease each time it renews one."""

_BLOCK: Final = re.compile(r"^lease\s*\{(.*?)^\}", re.MULTILINE | re.DOTALL)
_STATEMENT: Final = re.compile(r"^\s*(?:option\s+)?([\w-]+)\s+(.*?);\s*$", re.MULTILINE)
_CLASSLESS: Final = ("rfc3442-classless-static-routes", "classless-static-routes", "ms-classless-static-routes")


def dhclient(text: str) -> list[Lease]:
    """Return the leases of a dhclient.leases(5), the latest last."""
    return [lease for block in _BLOCK.findall(text[-LARGEST_LEASES:]) if (lease := _block(block)) is not None]


def _block(block: str) -> Lease | None:
    found = dict(_STATEMENT.findall(block))
    address = _address(found.get("fixed-address", ""))
    routers = _first(found.get("routers", "").split(","))
    for key in _CLASSLESS:
        if key in found:
            # A client that knows these must not look at the routers (RFC 3442).
            routers = _default_in(_numbers(found[key]))
            break
    if address is None or routers is None:
        return None
    link = found.get("interface", "").strip().strip('"')
    return Lease(
        link=link,
        address=address,
        router=routers,
        expires=_time(found.get("expire", "")),
        program="dhclient",
        resolvers=_addresses(found.get("domain-name-servers", "").split(",")),
    )


def _time(words: str) -> float | None:
    """Return the Unix time of a date of dhclient's; None for never, and for what is no date."""
    if match := re.match(r"epoch\s+(\d{1,12})", words):
        return float(match[1])
    try:
        # A weekday, a date and a time of day, always UTC.
        date = " ".join([*words.split()[1:3], "+0000"])
        return datetime.strptime(date, "%Y/%m/%d %H:%M:%S %z").timestamp()
    except ValueError:
        # A date that nobody can read is long over; one that is not there never comes.
        return None if words in ("", "never") else 0.0


_FIXED: Final = 240
_COOKIE: Final = b"\x63\x82\x53\x63"
_ROUTER, _RESOLVERS, _SECONDS, _ROUTES = 3, 6, 51, 121


def dhcpcd(message: bytes, link: str, written: float) -> list[Lease]:
    """Return the lease in a file of dhcpcd: the server's message as it came (RFC 2131).

    Args:
        message: the file.
        link: the device that its name tells.
        written: when it was written, Unix seconds.
    """
    if len(message) < _FIXED or message[236:_FIXED] != _COOKIE:
        return []
    options = _options(message[_FIXED:LARGEST_LEASES])
    routers = options.get(_ROUTER, b"")
    router = IPv4Address(routers[:4]) if len(routers) >= 4 else None
    if _ROUTES in options:
        router = _default_in(options[_ROUTES])
    seconds = options.get(_SECONDS, b"")
    if router is None or router.is_unspecified or len(seconds) != 4:
        return []
    (lasts,) = struct.unpack("!I", seconds)
    expires = None if lasts == 0xFFFF_FFFF else written + lasts
    named = options.get(_RESOLVERS, b"")
    lease = Lease(
        link=link,
        address=IPv4Address(message[16:20]),
        router=router,
        expires=expires,
        program="dhcpcd",
        resolvers=tuple(IPv4Address(named[at : at + 4]) for at in range(0, len(named) // 4 * 4, 4)),
    )
    return [lease]


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data) and data[offset] != 255:
        if data[offset] == 0:
            offset += 1
            continue
        if offset + 2 > len(data):
            break
        kind, length = data[offset], data[offset + 1]
        # A long option comes in pieces (RFC 3396).
        found[kind] = found.get(kind, b"") + data[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


def key_values(text: str, link: str, program: str) -> list[Lease]:
    """Return the lease in a file of systemd-networkd or NetworkManager: one ``KEY=value`` each line."""
    found = dict(line.split("=", 1) for line in text[:LARGEST_LEASES].splitlines() if "=" in line)
    address, router = _address(found.get("ADDRESS", "")), _first(found.get("ROUTER", "").split())
    routes = found.get("CLASSLESS_ROUTES") or found.get("ROUTES")
    if routes:
        pairs = (route.partition(",") for route in routes.split())
        router = _first(gateway for target, _, gateway in pairs if target == "0.0.0.0/0")
    if address is None or router is None:
        return []
    resolvers = _addresses(found.get("DNS", "").split())
    return [Lease(link=link, address=address, router=router, expires=None, program=program, resolvers=resolvers)]


def _numbers(words: str) -> bytes:
    found = [int(word) for word in words.replace(" ", "").split(",") if word.isdecimal() and len(word) < 4]
    return bytes(number for number in found if number < 256)


def _default_in(routes: bytes) -> IPv4Address | None:
    """Return the router of the default route among classless static routes (RFC 3442)."""
    offset = 0
    while offset < len(routes) and (length := routes[offset]) <= Family.V4.host_length:
        gateway = offset + 1 + (length + 7) // 8
        if length == 0 and len(routes) >= gateway + 4:
            return IPv4Address(routes[gateway : gateway + 4])
        offset = gateway + 4
    return None


def _first(words: Iterable[str]) -> IPv4Address | None:
    return next(iter(_addresses(words)), None)


def _addresses(words: Iterable[str]) -> tuple[IPv4Address, ...]:
    return tuple(a for word in words if (a := _address(word)) is not None and not a.is_unspecified)


def _address(word: str) -> IPv4Address | None:
    try:
        return IPv4Address(word.strip())
    except ValueError:
        return None


def valid(found: Iterable[Lease], link: str, own: Iterable[object], now: float) -> Lease | None:
    """Return the latest lease that still holds: of the link, for an address that the link has.

    Args:
        found: leases of one link's files, the latest last.
        link: its name.
        own: its addresses.
        now: Unix seconds.
    """
    addresses = set(own)
    holding = [
        lease
        for lease in found
        if lease.link in ("", link) and lease.address in addresses and (lease.expires is None or lease.expires > now)
    ]
    return holding[-1] if holding else None


CURES: Final[Mapping[str, str]] = {
    "dhclient": "`metric {metric}` under `iface {link} inet dhcp` in /etc/network/interfaces",
    "dhcpcd": "`metric {metric}` under `interface {link}` in /etc/dhcpcd.conf",
    "systemd-networkd": "`RouteMetric={metric}` under `[DHCPv4]` in the .network file of {link}",
    "NetworkManager": "`nmcli connection modify NAME ipv4.route-metric {metric}` for the connection of {link}",
}


def warning_of(name: str, lease: Lease, link: str, number: int) -> str:
    """Say that a router was taken from a lease, and the line that gives the link a default route of its own.

    Args:
        name: of the uplink.
        lease: where the router was found.
        link: its device.
        number: the uplink's place in the file, from 1: its metric is to differ from those of others.
    """
    cure = CURES[lease.program].format(metric=100 + number, link=link)
    return (
        f"uplink {name}: no default route through {link}, although {lease.program} got the router {lease.router}: "
        f"default routes of two links with the same metric exclude each other; give this one its own, {cure}"
    )
