"""What `polywan why` is asked, from its words to a value, and from that to a packet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import Final

from polywan.config.kinds.matches import DSCP
from polywan.core.errors import PolywanError
from polywan.core.net import PROTOCOLS, Family, IPAddress, family_of
from polywan.core.packet import Packet

BOX: Final = ("-", "box")
"""Words for the box itself in the place of a source."""

PORTED: Final = frozenset({6, 17, 33, 132, 136})
"""Protocols whose header begins with two port numbers: TCP, UDP, DCCP, SCTP, UDP-Lite (IANA)."""

ICMP: Final[Mapping[Family, int]] = {Family.V4: 1, Family.V6: 58}

_BRACKETED: Final = re.compile(r"\[(?P<host>[^\[\]]+)\](?::(?P<port>[^:]*))?")
_DEVICE: Final = re.compile(r"[^/\s\x00-\x1f]{1,15}")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}")
_ALL_BITS: Final = 0xFFFF_FFFF


class QuestionError(PolywanError):
    """The question makes no sense; the text says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A connection that somebody asks about.

    Attributes:
        source: None for the box, with the address that its routing prefers.
        in_interface: None to let the shell find the device by which the source is reached.
        others: as in `Packet`.
    """

    source: IPAddress | None
    destination: IPAddress
    protocol: int = 6
    source_port: int | None = None
    port: int | None = None
    in_interface: str | None = None
    user: int | None = None
    group: int | None = None
    cgroup: str | None = None
    mac: str | None = None
    dscp: int = 0
    mark: int = 0
    at: int | None = None

    @property
    def family(self) -> Family:
        """The family of both addresses."""
        return family_of(self.destination)

    def packet(self, source: IPAddress, in_interface: str | None, now: int, *, bound: bool = False) -> Packet:
        """Return the connection's first packet.

        Args:
            source: the question's own, or the one that the box would take.
            in_interface: device it arrives by; None for the box's own.
            now: Unix time, seconds, unless the question names another.
            bound: the box's socket is bound to the source.
        """
        return Packet(
            family=self.family,
            source=source,
            destination=self.destination,
            protocol=self.protocol,
            source_port=self.source_port,
            port=self.port,
            in_interface=in_interface,
            dscp=self.dscp,
            mac=self.mac,
            mark=self.mark,
            user=self.user,
            group=self.group,
            cgroup=self.cgroup,
            bound=bound,
            at=now if self.at is None else self.at,
        )


def parse(words: Mapping[str, str]) -> Question:
    """Return the question that these words ask; keys are those of `Question`, `to` may carry a port.

    Raises:
        QuestionError: a word is not what was expected, or they contradict each other.
    """
    if unknown := sorted(words.keys() - QUESTION_KEYS):
        raise QuestionError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(QUESTION_KEYS))}")
    if "to" not in words:
        raise QuestionError("a destination is needed")
    destination, port = _target(words["to"])
    source = None if words.get("from", "-") in BOX else _address(words["from"], "source")
    if source is not None and source.version != destination.version:
        raise QuestionError(f"{source} and {destination} are in different address families")
    protocol = _protocol(words.get("protocol", "tcp"), family_of(destination))
    source_port = _number(words, "source_port", 65535)
    if protocol not in PORTED and (port, source_port) != (None, None):
        raise QuestionError(f"protocol {words.get('protocol')} has no ports")
    question = Question(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=source_port,
        port=port,
        in_interface=_shaped(words, "in_interface", _DEVICE, "a network device"),
        user=_number(words, "user", _ALL_BITS),
        group=_number(words, "group", _ALL_BITS),
        cgroup=words["cgroup"].strip("/") if "cgroup" in words else None,
        mac=_mac(words),
        dscp=_dscp(words.get("dscp", "0")),
        mark=_number(words, "mark", _ALL_BITS) or 0,
        at=_moment(words),
    )
    if question.source is None and (question.in_interface or question.mac):
        raise QuestionError("--in-interface and --mac do not apply to the box's own connections")
    return question


QUESTION_KEYS: Final = frozenset(
    {"from", "to", "protocol", "source_port", "in_interface", "user", "group", "cgroup", "mac", "dscp", "mark", "at"}
)
"""Words that a question may have."""


def _target(text: str) -> tuple[IPAddress, int | None]:
    """Split ``ADDRESS``, ``ADDRESS:PORT`` and ``[ADDRESS]:PORT``."""
    if found := _BRACKETED.fullmatch(text):
        host, port = found["host"], found["port"]
    elif text.count(":") == 1:
        host, port = text.split(":")
    else:
        host, port = text, None
    return _address(host, "destination"), None if port is None else _integer(port, "port", 65535)


def _address(text: str, what: str) -> IPAddress:
    try:
        found = ip_address(text)
    except ValueError:
        hint = "; names are not looked up" if any(c.isalpha() for c in text) and ":" not in text else ""
        raise QuestionError(f"{what}: expected an IP address, got {text!r}{hint}") from None
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise QuestionError(f"{what}: remove the % part of {text!r}; --in-interface names the device")
    return found


def _protocol(text: str, family: Family) -> int:
    if text.lower() in ("icmp", "icmpv6", "ipv6-icmp"):
        return ICMP[family]
    known = PROTOCOLS.get(text.lower())
    return _integer(text, "protocol", 255, "tcp, udp, icmp, another name or a number") if known is None else known


def _number(words: Mapping[str, str], key: str, most: int) -> int | None:
    return _integer(words[key], key, most) if key in words else None


def _integer(text: str, what: str, most: int, expected: str = "a number") -> int:
    try:
        # A number of thousands of digits is refused by int itself.
        value = int(text, 0) if text.isascii() and "_" not in text else -1
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise QuestionError(f"{what}: expected {expected} from 0 to {most}, got {text[:40]!r}")
    return value


def _shaped(words: Mapping[str, str], key: str, form: re.Pattern[str], expected: str) -> str | None:
    if key not in words:
        return None
    if not form.fullmatch(words[key]):
        raise QuestionError(f"{key}: expected {expected}, got {words[key][:40]!r}")
    return words[key]


def _mac(words: Mapping[str, str]) -> str | None:
    lower = {key: text.lower() for key, text in words.items() if key == "mac"}
    found = _shaped(lower, "mac", _MAC, 'a MAC address such as "00:1b:44:11:3a:b7"')
    return found.replace("-", ":") if found else None


def _dscp(text: str) -> int:
    known = DSCP.get(text.lower())
    return _integer(text, "dscp", 63, 'a name such as "ef" or a number') if known is None else known


def _moment(words: Mapping[str, str]) -> int | None:
    """Read ISO 8601 with its offset, or Unix seconds: a client's local time is nothing that the daemon knows."""
    if "at" not in words:
        return None
    text = words["at"]
    if text.isdecimal() and text.isascii():
        return _integer(text, "at", 1 << 40)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.timestamp())
    except (ValueError, OverflowError):
        pass
    raise QuestionError(f'at: expected a time with its offset such as "2026-03-01T08:00+01:00", got {text[:40]!r}')
