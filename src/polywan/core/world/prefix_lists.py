"""Files of prefixes: from their text to a `PrefixList`, or to every fault in it with its line."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2s
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NoReturn

from polywan.config.faults import shown
from polywan.core.net import Family, IPAddress, IPNetwork
from polywan.core.world.lookups import PrefixList

MOST_PREFIXES: Final = 500_000
"""A longer list is something else, and would take seconds and hundreds of megabytes."""

MOST_FAULTS: Final = 20
"""Reading stops here: a file of another kind has a fault in every line."""

_OCTETS: Final = {str(number): number for number in range(256)}
_LENGTHS: Final = {Family.V4: {str(n): n for n in range(33)}, Family.V6: {str(n): n for n in range(129)}}
_ROOM: Final = 8
"""Bits of the length in a packed prefix: the network's number, then its length, so that sorting puts a prefix right
before everything within it. Numbers, since the objects of `ipaddress` take several times as long."""


_LONGEST: Final = 43
_ATTEMPT: Final = re.compile(
    r"(?:[0-9]{1,3}\.){1,4}[0-9]{0,3}(?:/[0-9.]{0,15})?|(?:[0-9a-fA-F]{0,4}:){2,8}(?:[0-9a-fA-F]{0,4}|[0-9.]{7,15})(?:/[0-9]{0,3})?"
)
"""What somebody meant as an address or a prefix, and can be no secret: nothing else of a line is shown."""


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with one line, counted from 1."""

    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class _Bad(Exception):  # noqa: N818 - becomes a Fault as soon as its line is known
    """An entry is no prefix: message and hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint


def parse(text: str) -> PrefixList | tuple[LineFault, ...]:
    """Read one prefix or address per line; `#` and `;` begin a comment, and empty lines count for nothing.

    Duplicates and what lies within another prefix are dropped, halves are joined. Returns the faults instead when
    there are any, `MOST_FAULTS` at most.
    """
    packed: dict[Family, set[int]] = {Family.V4: set(), Family.V6: set()}
    faults: list[LineFault] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        entry = line.partition("#")[0].partition(";")[0].strip()
        if not entry:
            continue
        try:
            family, prefix = _packed(entry)
        except _Bad as bad:
            faults.append(LineFault(number, bad.message, bad.hint))
            if len(faults) == MOST_FAULTS:
                break
            continue
        packed[family].add(prefix)
        if len(packed[Family.V4]) + len(packed[Family.V6]) > MOST_PREFIXES:
            return (LineFault(number, f"too many prefixes; a list may have {MOST_PREFIXES} prefixes"),)
    if faults:
        return tuple(faults)
    v4, v6 = (tuple(_texts(family, collapse(family, packed[family]))) for family in (Family.V4, Family.V6))
    return PrefixList(blake2s("\n".join((*v4, *v6)).encode(), digest_size=4).hexdigest(), v4, v6)


def holds(prefixes: PrefixList, address: IPAddress) -> bool:
    """Tell whether an address is in the list; takes a few steps, however long the list is."""
    family = Family(address.version)
    entries = prefixes.of(family)
    place = bisect_right(entries, int(address), key=lambda entry: _packed(entry)[1] >> _ROOM)
    return place > 0 and _within(family, int(address) << _ROOM, _packed(entries[place - 1])[1])


def collapse(family: Family, prefixes: Iterable[int]) -> list[int]:
    """Return the fewest packed prefixes with the same addresses, sorted."""
    found: list[int] = []
    for prefix in sorted(prefixes):
        if found and _within(family, prefix, found[-1]):
            continue
        found.append(prefix)
        # Two halves of a prefix differ in the last bit of their networks only; what they make may be a half in turn.
        while len(found) > 1 and found[-2] ^ found[-1] == 1 << family.host_length - _length(found[-1]) + _ROOM:
            found[-2:] = [found[-2] - 1]
    return found


def packed(network: IPNetwork) -> int:
    """Pack a network."""
    return int(network.network_address) << _ROOM | network.prefixlen


def unpacked(family: Family, prefix: int) -> IPNetwork:
    """Return the network that a packed prefix stands for."""
    kind = IPv4Network if family is Family.V4 else IPv6Network
    return kind((prefix >> _ROOM, _length(prefix)))


def _length(prefix: int) -> int:
    return prefix & (1 << _ROOM) - 1


def _within(family: Family, inner: int, outer: int) -> bool:
    shift = family.host_length - _length(outer) + _ROOM
    return inner >> shift == outer >> shift


def _packed(entry: str) -> tuple[Family, int]:
    """Pack one prefix or address.

    Raises:
        _Bad: it is neither.
    """
    address, slash, length = entry.partition("/")
    parts = address.split(".")
    try:
        if len(parts) == 4 and ":" not in address:
            family = Family.V4
            a, b, c, d = parts
            number = _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
        else:
            family = Family.V6
            if "%" in address:
                _refuse(entry)
            number = int(IPv6Address(address))
        bits = _LENGTHS[family][length] if slash else family.host_length
    except (KeyError, AddressValueError):
        _refuse(entry)
    if outside := number & (1 << family.host_length - bits) - 1:
        network = _text(family, number - outside)
        raise _Bad(f"{shown(entry)} has host bits set", f"the network is {network}/{bits}")
    return family, number << _ROOM | bits


def _refuse(entry: str) -> NoReturn:
    hint = ""
    if len(entry.split()) > 1 or "," in entry:
        hint = "write one on each line, and # before a comment"
    elif "-" in entry:
        hint = "write a range as the prefixes that it consists of"
    # The list may be a link to a file that not every reader of this message may read.
    found = shown(entry) if len(entry) <= _LONGEST and _ATTEMPT.fullmatch(entry) else "something else"
    raise _Bad(f"expected a prefix or an address, got {found}", hint)


def _text(family: Family, number: int) -> str:
    return str(IPv4Address(number) if family is Family.V4 else IPv6Address(number))


def _texts(family: Family, packed: Iterable[int]) -> Iterator[str]:
    for prefix in packed:
        length = _length(prefix)
        address = _text(family, prefix >> _ROOM)
        yield address if length == family.host_length else f"{address}/{length}"
