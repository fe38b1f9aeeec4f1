"""What a rule of nft compares, where the model has it (libnftables-json(5), statement match)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address as address
from ipaddress import ip_network, summarize_address_range
from typing import Any, Final

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    ConnectionState,
    Device,
    Direction,
    MarkIs,
    MarkOf,
    Match,
    Port,
    Prefix,
    Protocol,
    State,
    Statistic,
)
from polywan.core.net import PROTOCOL_NAMES, PROTOCOLS, Family, IPNetwork

_STATES: Final[dict[str, ConnectionState]] = {
    "new": "new",
    "established": "established",
    "related": "related",
    "invalid": "invalid",
    "untracked": "untracked",
}


def known(compared: Mapping[str, Any], values: list[Any], *, invert: bool) -> Match | None:
    """Return what is compared; None where the model has no such condition.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it makes no sense.
    """
    if "meta" in compared:
        return _of_meta(str(compared["meta"]["key"]), values, invert=invert)
    if "ct" in compared:
        return _of_connection(str(compared["ct"]["key"]), values, invert=invert)
    if "payload" in compared:
        return _of_payload(compared["payload"], values, invert=invert)
    if "&" in compared:
        return _of_mark(compared["&"][0], values, compared["&"][1], invert=invert)
    if "numgen" in compared and not compared["numgen"].get("offset"):
        mode, every = compared["numgen"]["mode"], int(compared["numgen"]["mod"])
        if mode == "inc" and len(values) == 1 and isinstance(values[0], int):
            return Statistic("nth", every, values[0], 1 / every, invert)
        if mode == "random":
            return Statistic("random", probability=sum(map(width, values)) / every, invert=invert)
    return None


def width(value: Any) -> int:
    """Return how many numbers a value stands for."""
    if isinstance(value, Mapping) and "range" in value:
        return int(value["range"][1]) - int(value["range"][0]) + 1
    return 1


def _of_meta(key: str, values: list[Any], *, invert: bool) -> Match | None:
    if key in ("iifname", "iif", "oifname", "oif") and all(isinstance(value, str) for value in values):
        return Device("in" if key.startswith("i") else "out", tuple(values), invert)
    if key in ("l4proto", "protocol") and key == "l4proto":
        return Protocol(tuple(_protocol(value) for value in values), invert)
    if key == "nfproto" and len(values) == 1 and values[0] in ("ipv4", "ipv6"):
        family = Family.V4 if (values[0] == "ipv4") is not invert else Family.V6
        return Prefix("source", (family.default,))
    return _of_mark({"meta": {"key": key}}, values, ALL_MARK_BITS, invert=invert) if key == "mark" else None


def _protocol(value: Any) -> str:
    if isinstance(value, int):
        return PROTOCOL_NAMES.get(value, str(value))
    name = {"ipv6-icmp": "icmpv6"}.get(str(value), str(value))
    if name not in PROTOCOLS:
        raise ValueError(name)
    return name


def _of_connection(key: str, values: list[Any], *, invert: bool) -> Match | None:
    if key == "state":
        return State(frozenset(_STATES[value] for value in values), invert)
    if key == "direction" and len(values) == 1 and values[0] in ("original", "reply"):
        return Direction(values[0], invert)
    return _of_mark({"ct": {"key": key}}, values, ALL_MARK_BITS, invert=invert) if key == "mark" else None


def _of_mark(of: Any, values: list[Any], mask: Any, *, invert: bool) -> Match | None:
    whose = mark_of(of)
    if whose is None or len(values) != 1 or not isinstance(values[0], int) or not isinstance(mask, int):
        return None
    return MarkIs(whose, values[0], mask, invert)


def mark_of(of: Any) -> MarkOf | None:
    """Return whose mark an expression is; None when it is none."""
    if isinstance(of, Mapping):
        for kind, whose in (("meta", "packet"), ("ct", "connection")):
            if isinstance(of.get(kind), Mapping) and of[kind].get("key") == "mark":
                return "packet" if whose == "packet" else "connection"
    return None


def _of_payload(about: Mapping[str, Any], values: list[Any], *, invert: bool) -> Match | None:
    protocol, field = about.get("protocol"), about.get("field")
    if protocol in ("ip", "ip6") and field in ("saddr", "daddr"):
        networks = tuple(network for value in values for network in _networks(value))
        return Prefix("source" if field == "saddr" else "destination", networks, invert)
    if field in ("sport", "dport") and protocol in ("tcp", "udp", "th", "sctp", "udplite", "dccp"):
        return Port("source" if field == "sport" else "destination", tuple(map(_range, values)), invert)
    if (protocol, field) in (("ip", "protocol"), ("ip6", "nexthdr")):
        return Protocol(tuple(_protocol(value) for value in values), invert)
    return None


def _networks(value: Any) -> Iterator[IPNetwork]:
    if isinstance(value, Mapping) and "prefix" in value:
        yield ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}", strict=False)
    elif isinstance(value, Mapping) and "range" in value:
        low, high = map(address, value["range"])
        yield from summarize_address_range(low, high)
    else:
        yield ip_network(value)


def _range(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping) and "range" in value:
        return int(value["range"][0]), int(value["range"][1])
    return int(value), int(value)
