"""From the document in the memory file to a `Memory`: what makes sense is kept, the rest is left out and named.

The file is the daemon's user's, and root reads it for `down`: nothing is believed that polywan cannot have written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeVar

from polywan.config.kinds.addresses import Device
from polywan.config.model import numbering
from polywan.core.net import Family, IPAddress
from polywan.core.policy.operator import Order, Verb
from polywan.core.routing.sysctls import restorable
from polywan.core.state.memory import Memory
from polywan.core.state.outages import KEPT_OUTAGES, History, Outage
from polywan.core.versions import Migration
from polywan.core.world.paths import UplinkFamily

_K = TypeVar("_K")
_V = TypeVar("_V")

_LATEST: Final = 253_402_300_799.0  # the end of the year 9999
_MOST: Final = 1_000_000_000
_LONGEST: Final = 1000
_NAME: Final = re.compile(r"(policy:)?[A-Za-z][A-Za-z0-9_-]{0,63}")
_DEVICE: Final = Device()
_SENSELESS: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def _with_later_keys(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Version 0 was written before there were versions; keys were added to it one by one."""
    return {"devices": {}, "orders": {}, "leaving": [], "outages": {}, "unsure": False, **document}


MEMORY_MIGRATIONS: Final[tuple[Migration, ...]] = (_with_later_keys,)
"""For `versions.upgraded`: a new version of the document is a further one, with files in tests/data/state."""


class Remembered(NamedTuple):
    """What could be believed, and the parts of the document of which something was not."""

    memory: Memory
    senseless: tuple[str, ...]


def remembered(document: Mapping[str, Any]) -> Remembered:
    """Return what a document of our version holds."""
    found = _Document(document)
    memory = Memory(
        mask=found.value("mask", _mask),
        ids=_unique(found),
        gateways=found.rows("gateways", _gateway),
        originals=found.table("originals", _original),
        devices=found.table("devices", _device),
        orders=found.table("orders", _order),
        drains=found.rows("leaving", _drain),
        outages=found.table("outages", _history),
        unsure=found.value("unsure", _flag) or False,
    )
    return Remembered(memory, tuple(dict.fromkeys(found.senseless)))


class _Document:
    """Reads parts of a document, and notes those with something in them that makes no sense."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.senseless: list[str] = []

    def value(self, key: str, read: Callable[[Any], _V]) -> _V | None:
        raw = self._document.get(key)
        try:
            return None if raw is None else read(raw)
        except _SENSELESS:
            self.senseless.append(key)
            return None

    def table(self, key: str, read: Callable[[str, Any], _V]) -> dict[str, _V]:
        raw = self._document.get(key)
        if not isinstance(raw, Mapping):
            self.senseless.append(key)
            return {}
        found: dict[str, _V] = {}
        for name, value in raw.items():
            try:
                found[name] = read(name, value)
            except _SENSELESS:
                self.senseless.append(key)
        return found

    def rows(self, key: str, read: Callable[[Any], tuple[_K, _V]]) -> dict[_K, _V]:
        raw = self._document.get(key)
        if not isinstance(raw, list):
            self.senseless.append(key)
            return {}
        found: dict[_K, _V] = {}
        for row in raw:
            try:
                name, value = read(row)
                found[name] = value
            except _SENSELESS:
                self.senseless.append(key)
        return found


def _unique(found: _Document) -> dict[str, int]:
    """Give each number to one name, the first that has it: two uplinks with one mark would be each other's."""
    ids: dict[str, int] = {}
    for name, number in found.table("ids", _id).items():
        if number in ids.values():
            found.senseless.append("ids")
        else:
            ids[name] = number
    return ids


def _demand(sense: bool) -> None:  # noqa: FBT001 - the one thing it is about
    if not sense:
        raise ValueError


def _named(name: object) -> str:
    _demand(isinstance(name, str) and _NAME.fullmatch(name) is not None)
    return str(name)


def _integer(raw: object, least: int, most: int) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not least <= raw <= most:
        raise ValueError
    return raw


def _seconds(raw: object) -> float:
    # What no calendar has could not be shown either.
    if not isinstance(raw, int | float) or isinstance(raw, bool) or not 0 <= raw <= _LATEST:
        raise ValueError
    return float(raw)


def _mask(raw: object) -> int:
    return _integer(raw, 1, 0xFFFF_FFFF)


def _flag(raw: object) -> bool:
    _demand(isinstance(raw, bool))
    return bool(raw)


def _id(name: str, raw: object) -> int:
    _named(name)
    return _integer(raw, 1, numbering.MOST_NUMBERS)


def _device(name: str, raw: object) -> str:
    _named(name)
    _demand(isinstance(raw, str))
    # Where several uplinks have the device, addresses that tell which of them.
    device, *words = str(raw).split(" ")
    _demand(_DEVICE.takes(device) and len(words) % 2 == 0 and {*words[::2]} <= {"via", "from"})
    for address in words[1::2]:
        ip_address(address)
    return str(raw)


def _gateway(row: Any) -> tuple[UplinkFamily, IPAddress]:
    name, family, text = row
    _demand(isinstance(text, str) and "%" not in text)
    via = ip_address(text)
    _demand(via.version == family and not (via.is_multicast or via.is_unspecified or via.is_loopback))
    return (_named(name), Family(via.version)), via


def _original(path: str, raw: object) -> str:
    if not isinstance(raw, str) or not restorable(path, raw):
        raise ValueError
    return raw


def _order(name: str, raw: Any) -> Order:
    _named(name)
    match Verb(raw["verb"]):
        case Verb.DRAIN:
            since, until = _seconds(raw["since"]), _seconds(raw["until"])
            return Order(verb=Verb.DRAIN, since=since, until=until, empty=_flag(raw["empty"]))
        case Verb.DISABLE:
            return Order(verb=Verb.DISABLE, since=_seconds(raw["since"]))
        case _:
            raise ValueError


def _drain(row: Any) -> tuple[UplinkFamily, float]:
    name, family, since = row
    return (_named(name), Family(_integer(family, 4, 6))), _seconds(since)


def _history(name: str, raw: Any) -> History:
    _named(name)
    last = tuple(map(_outage, raw["last"][:KEPT_OUTAGES]))
    return History(day=_integer(raw["day"], -_MOST, _MOST), count=_integer(raw["count"], 0, _MOST), last=last)


def _outage(raw: Any) -> Outage:
    reason, lasted = raw["reason"], raw["lasted"]
    _demand(isinstance(reason, str))
    # `status` shows it on somebody's terminal.
    text = "".join(c if c.isprintable() else "?" for c in reason[:_LONGEST])
    return Outage(began=_seconds(raw["began"]), lasted=None if lasted is None else _seconds(lasted), reason=text)
