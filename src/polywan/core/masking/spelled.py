"""Where addresses are in a text, in whichever way they are spelled."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, TypeAlias

from polywan.core.masking.networks import kept
from polywan.core.net import Family

_HEX: Final = "[0-9A-Fa-f]"
_BYTE: Final = re.compile(rf"{_HEX}{{2}}")
_OTHER_LETTER: Final = re.compile(r"[G-Zg-z_]")

_PLACES: Final = re.compile(
    rf"(?P<reverse6>(?:{_HEX}\.){{1,32}}(?=ip6\.arpa))"
    r"|(?P<reverse4>(?:[0-9]{1,3}\.){1,4}(?=in-addr\.arpa))"
    rf"|(?P<colons>{_HEX}{{0,5}}(?::{_HEX}{{0,5}}){{2,}}(?:(?:\.[0-9]{{1,9}}){{3}}(?![0-9]))?)"
    r"|(?P<dots>[0-9]{1,9}(?:\.[0-9]{1,9}){3,})"
    rf"|(?P<cisco>(?<!{_HEX})(?:{_HEX}{{4}}\.){{2}}{_HEX}{{4}}(?!{_HEX}))"
    rf"|(?P<dashed>(?<!{_HEX})(?:{_HEX}{{2}}-){{5}}{_HEX}{{2}}(?!{_HEX}))"
    r"|(?P<dashes>(?<![0-9])[0-9]{1,3}(?:-[0-9]{1,3}){3}(?![0-9]))"
    rf"|(?P<device>\b(?:enx|wlx|wwx){_HEX}{{12}}(?!{_HEX}))",
    re.IGNORECASE,
)
# Numbers and groups have bounds, so that a text without end is not looked through from each of its places.
_LENGTH: Final = re.compile(r"/([0-9]{1,3})(?![0-9.])")

_EMBEDDING: Final = {0: "::", 0xFFFF: "::ffff:", 0x64FF9B << 64: "64:ff9b::"}
"""How an IPv6 address begins that is written with an IPv4 address at its end, by what is before that."""

_MOST_GROUPS: Final = 9
"""Pieces between the colons of the longest spelling of an IPv6 address: seven groups, and a gap at one end."""


class Kind(StrEnum):
    """What a place in a text holds."""

    ADDRESS4 = "IPv4 addresses"
    ADDRESS6 = "IPv6 addresses"
    HARDWARE = "hardware addresses"


class Place(NamedTuple):
    """An address in a text.

    Attributes:
        start, end: where it is; without a prefix length that follows.
        value: as a number; of a hardware address its bytes.
        length: of the network that is named with it; that of a host without one.
        spelled: writes another value in the same way.
    """

    start: int
    end: int
    kind: Kind
    value: int
    length: int
    spelled: Callable[[int], str]


_Piece: TypeAlias = tuple[int, str]
"""Where it begins, and the text of it."""


def places(text: str) -> Iterator[Place]:
    """Yield addresses as they follow each other; none is part of another one."""
    for match in _PLACES.finditer(text):
        found = match.lastgroup or ""
        piece = (match.start(), match[0])
        match found:
            case "colons":
                yield from _with_colons(text, piece)
            case "dots":
                yield from _with_dots(text, piece)
            case "dashes":
                yield from _quad(text, piece, "-")
            case "reverse4":
                yield from _reverse4(piece)
            case "reverse6":
                yield _reverse6(piece)
            case "device":
                yield _hardware((match.start() + 3, match[0][3:]), "")
            case _:
                yield _hardware(piece, "." if found == "cisco" else "-")


def _length(text: str, end: int, family: Family) -> int:
    match = _LENGTH.match(text, end)
    return int(match[1]) if match and int(match[1]) <= family.host_length else family.host_length


def _quad(text: str, piece: _Piece, between: str) -> Iterator[Place]:
    start, spelled = piece
    numbers = [int(number) for number in spelled.split(between)]
    if max(numbers) < 256:
        end = start + len(spelled)
        length = _length(text, end, Family.V4)
        value = int.from_bytes(bytes(numbers))
        yield Place(start, end, Kind.ADDRESS4, value, length, lambda new: str(IPv4Address(new)).replace(".", between))


def _with_dots(text: str, piece: _Piece) -> Iterator[Place]:
    """Yield what four numbers with dots may be; where there are more, as in an object identifier, from the left on."""
    start, spelled = piece
    numbers = spelled.split(".")
    starts = [start]
    for number in numbers:
        starts.append(starts[-1] + len(number) + 1)
    at = 0
    while at + 4 <= len(numbers):
        found = [*_quad(text, (starts[at], ".".join(numbers[at : at + 4])), ".")]
        # Behind an address that stays there may begin one that does not.
        public = [place for place in found if not kept(Family.V4, place.value)]
        yield from public
        at += 4 if public else 1


def _reverse4(piece: _Piece) -> Iterator[Place]:
    start, spelled = piece
    numbers = [int(number) for number in reversed(spelled.rstrip(".").split("."))]
    if max(numbers) < 256:
        count = len(numbers)
        value = int.from_bytes(bytes([*numbers, *[0] * (4 - count)]))

        def written(new: int) -> str:
            return "".join(f"{number}." for number in reversed(new.to_bytes(4)[:count]))

        yield Place(start, start + len(spelled), Kind.ADDRESS4, value, 8 * count, written)


def _reverse6(piece: _Piece) -> Place:
    start, spelled = piece
    digits = "".join(reversed(spelled.split(".")))
    count = len(digits)

    def written(new: int) -> str:
        return "".join(f"{digit}." for digit in reversed(f"{new:032x}"[:count]))

    return Place(start, start + len(spelled), Kind.ADDRESS6, int(digits.ljust(32, "0"), 16), 4 * count, written)


def _hardware(piece: _Piece, between: str) -> Place:
    start, spelled = piece
    digits = spelled.replace(between, "") if between else spelled
    group = spelled.index(between) if between else len(digits)

    def written(new: int) -> str:
        text = f"{new:0{len(digits)}x}"
        return between.join(text[at : at + group] for at in range(0, len(text), group))

    return Place(start, start + len(spelled), Kind.HARDWARE, int(digits, 16), 4 * len(digits), written)


def _with_colons(text: str, piece: _Piece) -> Iterator[Place]:
    """Yield what is between colons: IPv6 addresses, the longest first, and rows of bytes, which are of hardware."""
    start, spelled = piece
    groups = spelled.split(":")
    starts = [start]
    for group in groups:
        starts.append(starts[-1] + len(group) + 1)
    # A word that goes on is no group.
    at = 1 if start and _OTHER_LETTER.match(text[start - 1]) else 0
    end = len(groups) - bool(_OTHER_LETTER.match(text, start + len(spelled)))
    while at < end:
        found = _bytes(groups, starts, at, end) or _address6(text, groups, starts, at, end)
        if found is None:
            if "." in groups[at]:
                yield from _with_dots(text, (starts[at], groups[at]))
            at += 1
        else:
            yield found
            at = bisect_right(starts, found.end)


def _bytes(groups: list[str], starts: list[int], at: int, end: int) -> Place | None:
    last = at
    while last < end and _BYTE.fullmatch(groups[last]):
        last += 1
    return _hardware((starts[at], ":".join(groups[at:last])), ":") if last - at >= 6 else None


def _address6(text: str, groups: list[str], starts: list[int], at: int, end: int) -> Place | None:
    for last in range(min(end, at + _MOST_GROUPS), at + 2, -1):
        spelled = ":".join(groups[at:last])
        with suppress(ValueError):
            value = int(IPv6Address(spelled))
            stop = starts[at] + len(spelled)
            return Place(starts[at], stop, Kind.ADDRESS6, value, _length(text, stop, Family.V6), _in_words(spelled))
    return None


def _in_words(spelled: str) -> Callable[[int], str]:
    def written(new: int) -> str:
        begins = _EMBEDDING.get(new >> 32) if "." in spelled else None
        return str(IPv6Address(new)) if begins is None else f"{begins}{IPv4Address(new & 0xFFFF_FFFF)}"

    return written
