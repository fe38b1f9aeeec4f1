"""Mask texts: what is secret, public or personal gets a stand-in, the same one in all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

from polywan.core.masking.networks import LONGEST_OF_MANY, embedding, kept
from polywan.core.masking.secrets import SecretPlace, Secrets
from polywan.core.masking.spelled import Kind, Place, places
from polywan.core.masking.stand_ins import StandIns, stand_ins
from polywan.core.net import Family

HOST: Final = "this-host"
"""Stands for the name of this machine."""

NAMES: Final = "host names"
MAIL: Final = "mail addresses"
USERS: Final = "home directories"

_MAIL: Final = re.compile(
    r"(?<![\w.+%#-])(?!user-[0-9]+@example\.invalid|masked-[0-9]+@)[\w.+%#-]+@(?:[\w-]+\.)+"
    r"(?!(?:service|socket|target|timer|mount|device|slice|scope|path)\b)[A-Za-z]{2,}(?![\w-])"
)
_HOME: Final = re.compile(r"(?<=/home/)(?!user-[0-9]+(?![^/\s\"':,;)]))[^/\s\"':,;)\\]+")
_HEX: Final = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}(?:[0-9A-Fa-f]{24})?(?![0-9A-Fa-f])")

_EUI64: Final = 0xFFFE << 24
"""In the middle of an interface identifier that was made of a hardware address (RFC 4291, appendix A)."""

_LOCAL_BIT: Final = 2 << 40
_KEPT_BITS: Final = 24
"""Of a hardware address: who made the device."""


class Tally(NamedTuple):
    """How many different ones of a kind there were, and how many times in each part."""

    different: int
    places: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """Texts that others may see.

    Attributes:
        texts: by part, as they came.
        tallies: by kind; those that were not there are left out.
        secrets: where each was.
        shared: addresses that share their stand-ins, because there were too many networks.
    """

    texts: Mapping[str, str]
    tallies: Mapping[str, Tally]
    secrets: tuple[SecretPlace, ...] = ()
    shared: int = 0


def mask(texts: Mapping[str, str], host: str = "", words: frozenset[str] = frozenset()) -> Masked:
    """Return texts without secrets, public addresses and names of people and of this machine.

    The same value has the same stand-in in all of them. Masking what is masked changes nothing.

    Args:
        texts: by part.
        host: the name of this machine.
        words: host names that stay, because they mean something else in the texts, such as "default".
    """
    secrets = Secrets()
    hidden = {part: secrets.hidden(part, text) for part, text in texts.items()}
    hidden = {part: secrets.everywhere(text) for part, text in hidden.items()}
    count = _Count()
    renamed = {part: _without_names(part, text, count, host, words) for part, text in hidden.items()}
    addresses = _Addresses.of(renamed)
    masked = {part: addresses.masked(part, text, count) for part, text in renamed.items()}
    return Masked(
        texts=masked,
        tallies=count.tallies(),
        secrets=tuple(dict.fromkeys(secrets.places)),
        shared=sum(one.shared for one in addresses.public.values()),
    )


@dataclass(slots=True)
class _Count:
    """What was replaced so far."""

    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    places: dict[str, Counter[str]] = field(default_factory=dict)

    def seen(self, kind: str, part: str, value: str) -> int:
        """Note one more, and return the number of this value among those of its kind, from 1."""
        self.places.setdefault(kind, Counter())[part] += 1
        known = self.numbers.setdefault(kind, {})
        return known.setdefault(value, len(known) + 1)

    def tallies(self) -> dict[str, Tally]:
        """Return all kinds."""
        return {kind: Tally(len(self.numbers[kind]), dict(counts)) for kind, counts in self.places.items()}


def _without_names(part: str, text: str, count: _Count, host: str, words: frozenset[str]) -> str:
    if "@" in text:
        text = _MAIL.sub(lambda match: f"user-{count.seen(MAIL, part, match[0])}@example.invalid", text)
    text = _HOME.sub(lambda match: f"user-{count.seen(USERS, part, match[0])}", text)
    for name in dict.fromkeys((host, host.partition(".")[0])):
        if name and name not in words and name != HOST:
            pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
            text = pattern.sub(lambda match: _host(part, match, count), text)
    return text


def _host(part: str, match: re.Match[str], count: _Count) -> str:
    count.seen(NAMES, part, match[0].lower())
    return HOST


@dataclass(frozen=True)
class _Addresses:
    """All addresses of the texts, with what stands for them: hardware addresses get numbers in their order."""

    public: Mapping[Family, StandIns]
    hardware: Mapping[int, int]
    places: Mapping[tuple[Family, int], Place]
    by_part: Mapping[str, Sequence[Place]]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> _Addresses:
        found: dict[Family, list[tuple[int, int]]] = {Family.V4: [], Family.V6: []}
        hardware: dict[int, int] = {}
        known_at: dict[tuple[Family, int], Place] = {}
        by_part = {part: [*places(text)] for part, text in texts.items()}
        for found_there in by_part.values():
            for place in found_there:
                for mac in _macs(place):
                    hardware.setdefault(mac, len(hardware) + 1)
                if (known := _public(place)) is not None:
                    family, value, length = known
                    found[family].append((value, length))
                    known_at[family, value if family is Family.V4 else place.value] = place
        return cls({family: stand_ins(family, named) for family, named in found.items()}, hardware, known_at, by_part)

    def masked(self, part: str, text: str, count: _Count) -> str:
        """Return a text of that part with stand-ins."""
        done = _replaced(text, ((place, self._new(place)) for place in self.by_part[part]), part, count)
        forms = self.in_hex
        return _HEX.sub(lambda match: forms.get(match[0].lower(), match[0]), done) if forms else done

    @cached_property
    def in_hex(self) -> Mapping[str, str]:
        """How the addresses are written in hexadecimal, each with its stand-in."""
        return {
            spelled: new
            for (family, value), place in self.places.items()
            for spelled, new in _in_hex(family, value, self._new(place))
        }

    def _new(self, place: Place) -> int:
        if place.kind is Kind.HARDWARE:
            return self._of_hardware(place)
        known = _public(place)
        if known is None:
            value = place.value
        else:
            family, asked, _ = known
            value = self.public[family].by_address[asked]
            if place.kind is Kind.ADDRESS6:
                ends = 32 if family is Family.V4 else 64 if _is_eui64(place.value) else 0
                value = (
                    place.value >> ends << ends | value
                    if family is Family.V4
                    else value | place.value & (1 << ends) - 1
                )
        if place.kind is Kind.ADDRESS6 and _is_eui64(place.value):
            number = self.hardware[_mac_of(place.value)]
            return value >> 24 << 24 | number & (1 << 24) - 1
        return value

    def _of_hardware(self, place: Place) -> int:
        rest = place.length - _KEPT_BITS
        for mac in _macs(place):
            return place.value >> rest << rest | self.hardware[mac] & (1 << rest) - 1
        return place.value


def _macs(place: Place) -> Iterable[int]:
    """Return the hardware address that a place holds, or is made of, if it tells the device."""
    if place.kind is Kind.HARDWARE:
        nothing = place.value in (0, (1 << place.length) - 1)
        return () if nothing else (place.value,)
    if place.kind is Kind.ADDRESS6 and _is_eui64(place.value):
        return (_mac_of(place.value),)
    return ()


def _is_eui64(value: int) -> bool:
    return value >> 24 & 0xFFFF == _EUI64 >> 24 and not embedding(value)


def _mac_of(value: int) -> int:
    return ((value >> 40 & 0xFF_FFFF) << 24 | value & 0xFF_FFFF) ^ _LOCAL_BIT


def _public(place: Place) -> tuple[Family, int, int] | None:
    """Return what of a place needs a stand-in: family, address and length of its network; None when nothing does."""
    match place.kind:
        case Kind.ADDRESS4:
            known = (Family.V4, place.value, place.length)
        case Kind.ADDRESS6 if embedding(place.value):
            known = (Family.V4, place.value & 0xFFFF_FFFF, max(0, place.length - 96) or 32)
        case Kind.ADDRESS6 if _is_eui64(place.value):
            known = (Family.V6, place.value >> 64 << 64, place.length)
        case Kind.ADDRESS6:
            known = (Family.V6, place.value, place.length)
        case _:
            return None
    family, value, length = known
    if length <= LONGEST_OF_MANY[family]:
        if not value & (1 << family.host_length - length) - 1:
            return None
        known = (family, value, family.host_length)
    return None if kept(family, value) else known


def _replaced(text: str, news: Iterable[tuple[Place, int]], part: str, count: _Count) -> str:
    pieces, at = [], 0
    for place, new in news:
        if new != place.value:
            count.seen(place.kind, part, f"{place.value:x}")
            pieces += [text[at : place.start], place.spelled(new)]
            at = place.end
    return "".join((*pieces, text[at:]))


def _in_hex(family: Family, value: int, new: int) -> Iterable[tuple[str, str]]:
    """Return how an address is written in hexadecimal, in both orders of bytes, each with that of the stand-in."""
    size = family.host_length // 8
    new &= (1 << family.host_length) - 1
    orders: tuple[Callable[[int], str], ...] = (
        lambda number: number.to_bytes(size).hex(),
        lambda number: number.to_bytes(size)[::-1].hex(),
    )
    return [(spelled(value), spelled(new)) for spelled in orders]
