"""Values that rules are written with: numbers, marks, protocols."""

from __future__ import annotations

import re
from typing import Final

from polywan.core.firewall.model import ALL_MARK_BITS
from polywan.core.net import PROTOCOL_NAMES, PROTOCOLS

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


def whole_number(text: str, most: int) -> int:
    """Read a number, decimal or hexadecimal; iptables takes a leading 0 for octal in no place that is read here.

    Raises:
        ValueError: it is none, or more than `most`.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    number = int(text, 16) if text[1:2] in ("x", "X") else int(text)
    if number > most:
        raise ValueError(text)
    return number


def marked(text: str) -> tuple[int, int]:
    """Read a mark with or without its mask: ``0x1/0xff``.

    Raises:
        ValueError: it is none.
    """
    value, slash, mask = text.partition("/")
    return whole_number(value, ALL_MARK_BITS), whole_number(mask, ALL_MARK_BITS) if slash else ALL_MARK_BITS


def protocol_name(text: str) -> str:
    """Return how the model names a protocol that a program has written in its own way.

    Raises:
        ValueError: it is not known.
    """
    name = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}.get(text.lower(), text.lower())
    if name in PROTOCOLS:
        return name
    number = whole_number(text, 0xFF)
    return PROTOCOL_NAMES.get(number, str(number))
