"""What rules match by beside addresses and ports: DSCP, MAC, marks, users, cgroups, domains, files, time of day."""

from __future__ import annotations

import grp
import pwd
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from polywan.config.faults import closest, shown
from polywan.config.kinds.scalars import Kind, rejection

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Days by number, Monday first, as `datetime.weekday` counts."""

_LONG_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY_NUMBERS: Final = {name: number for names in (DAYS, _LONG_DAYS) for number, name in enumerate(names)}

DSCP: Final = {
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{c}{d}": 8 * c + 2 * d for c in range(1, 5) for d in range(1, 4)},
    "ef": 46,
    "va": 44,
    "le": 1,
    "be": 0,
}
"""Code points by name (RFC 2474, 2597, 3246, 5865, 8622)."""

_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
_MARK: Final = re.compile(r"(0[xX][0-9A-Fa-f]{1,8}|[0-9]{1,10})(?:/(0[xX][0-9A-Fa-f]{1,8}|[0-9]{1,10}))?")
_OWNER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,10}")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_CGROUP: Final = re.compile(r"[A-Za-z0-9_.@:+\\-]{1,255}")
_CLOCK: Final = re.compile(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]|24:00")
_ALL_BITS: Final = 0xFFFF_FFFF
_CGROUP_ROOT: Final = "/sys/fs/cgroup/"
_LONGEST_CGROUP: Final = 1024
_LONGEST_NAME: Final = 253
_LONGEST_PATH: Final = 4096


@dataclass(frozen=True, slots=True)
class Owner:
    """A user or group: the name as written, and its number."""

    name: str
    id: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FwMark:
    """Bits of the packet mark that others set: matches when mark & `mask` == `value`.

    A mask of all 32 bits is that of a mark written without one; it stands for all bits that are not polywan's.
    """

    value: int
    mask: int

    def __str__(self) -> str:
        return f"{self.value:#x}/{self.mask:#x}"


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the week in local time.

    Attributes:
        days: on which it begins, 0 is Monday.
        start, end: seconds of the day, `end` excluded; an `end` at or before `start` lies on the next day.
    """

    days: tuple[int, ...]
    start: int
    end: int

    def __str__(self) -> str:
        days = ",".join(DAYS[d] for d in self.days)
        return f"{days} {_clock(self.start)}-{_clock(self.end)}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}"


class Spelled(Kind):
    """A value of several parts that is written as one word, in the file and in what is printed of it."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(str)
        return core_schema.no_info_plain_validator_function(self._parse, serialization=written)


@dataclass(frozen=True, slots=True)
class Dscp(Kind):
    """A DSCP code point, by name or number."""

    def _expected(self) -> str:
        return 'a DSCP name such as "ef", "cs1" or "af41", or a number from 0 to 63'

    def _schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 63}, {"type": "string", "enum": list(DSCP)}]}

    def _parse(self, raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= 63:
            return raw
        if isinstance(raw, str):
            if raw.lower() in DSCP:
                return DSCP[raw.lower()]
            raise self.refusal(raw, "write it without quotes" if raw.isdigit() else closest(raw, DSCP))
        tos = isinstance(raw, int) and 63 < raw < 256
        raise self.refusal(raw, "a ToS byte is four times the DSCP: divide by 4" if tos else "")


@dataclass(frozen=True, slots=True)
class Mac(Kind):
    """The hardware address of a neighbour, kept in lower case with colons."""

    def _expected(self) -> str:
        return 'a MAC address such as "00:1b:44:11:3a:b7"'

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_MAC.pattern}$"}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str) or not _MAC.fullmatch(raw):
            raise self.refusal(raw)
        return raw.lower().replace("-", ":")


@dataclass(frozen=True, slots=True)
class ForeignMark(Spelled):
    """A mark of somebody else's, with or without a mask."""

    def _expected(self) -> str:
        return 'a mark such as "0x10" or "0x10/0xff"'

    def _schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 0, "maximum": _ALL_BITS}
        return {"anyOf": [{"type": "string", "pattern": f"^{_MARK.pattern}$"}, number]}

    def _parse(self, raw: object) -> FwMark:
        if isinstance(raw, FwMark):
            return raw
        if isinstance(raw, int) and not isinstance(raw, bool):
            if 0 <= raw <= _ALL_BITS:
                return FwMark(raw, _ALL_BITS)
            raise self.refusal(raw, "marks have 32 bits")
        found = _MARK.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if not found:
            raise self.refusal(raw)
        value, mask = _number(found[1]), _number(found[2]) if found[2] else _ALL_BITS
        if value > _ALL_BITS or mask > _ALL_BITS:
            raise self.refusal(raw, "marks have 32 bits")
        if not mask:
            raise rejection(f"{shown(raw)} compares no bits", "remove the mask to compare all bits")
        if value & ~mask:
            raise rejection(f"{shown(raw)} never matches: the value has bits outside the mask")
        return FwMark(value, mask)


def _number(text: str) -> int:
    return int(text, 16 if "x" in text.lower() else 10)


@cache
def _accounts(*, group: bool) -> tuple[str, ...]:
    """Names for suggestions; asked for once, as a directory service may take long to list them."""
    with suppress(OSError):
        return tuple(g.gr_name for g in grp.getgrall()) if group else tuple(p.pw_name for p in pwd.getpwall())
    return ()


@dataclass(frozen=True, slots=True)
class Account(Spelled):
    """A user or group of this machine, by name or number."""

    group: bool = False

    def _expected(self) -> str:
        return f"a {self._word} of this machine, by name or number"

    @property
    def _word(self) -> str:
        return "group" if self.group else "user"

    def _schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 0, "maximum": _ALL_BITS - 1}
        return {"anyOf": [{"type": "string", "pattern": f"^({_OWNER.pattern})$"}, number]}

    def _parse(self, raw: object) -> Owner:
        if isinstance(raw, Owner):
            return raw
        number = int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) <= 10 else raw
        if isinstance(number, int) and not isinstance(number, bool):
            # The highest number is (uid_t) -1, which means "nobody in particular" to the kernel.
            if 0 <= number < _ALL_BITS:
                return Owner(str(number), number)
            raise self.refusal(raw)
        if not isinstance(raw, str) or not _OWNER.fullmatch(raw):
            raise self.refusal(raw)
        with suppress(KeyError, OSError):
            return Owner(raw, grp.getgrnam(raw).gr_gid if self.group else pwd.getpwnam(raw).pw_uid)
        known = closest(raw, _accounts(group=self.group))
        raise rejection(f"there is no {self._word} {shown(raw)} on this machine", known or "a number also works")


@dataclass(frozen=True, slots=True)
class Cgroup(Kind):
    """A control group (cgroups(7), version 2) by its path below the root."""

    def _expected(self) -> str:
        return 'the path of a control group such as "system.slice/backup.service"'

    def _schema(self) -> dict[str, Any]:
        part = _CGROUP.pattern
        return {"type": "string", "pattern": f"^/?{part}(/{part})*/?$", "maxLength": _LONGEST_CGROUP}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise self.refusal(raw)
        if raw.startswith(_CGROUP_ROOT):
            raise self.refusal(raw, f"remove {_CGROUP_ROOT}")
        parts = raw.removeprefix("/").removesuffix("/").split("/")
        if len(raw) > _LONGEST_CGROUP or not all(_CGROUP.fullmatch(p) and p not in {".", ".."} for p in parts):
            raise self.refusal(raw)
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class DomainName(Kind):
    """A domain name, kept in lower case and in the ASCII form of international names (RFC 3490)."""

    def _expected(self) -> str:
        return 'a domain name such as "example.com"'

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[^\s*/:@]+$", "maxLength": _LONGEST_NAME}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str) or not 0 < len(raw) <= _LONGEST_NAME:
            raise self.refusal(raw)
        if _is_address(raw):
            raise self.refusal(raw, 'put an address into "to"')
        if raw.startswith("*."):
            hint = f"write {shown(raw[2:])}: for subdomains use dnsmasq, see `polywan show dnsmasq`"
            raise self.refusal(raw, hint)
        if "/" in raw:
            raise self.refusal(raw, "write only the name, without https:// and path")
        name = raw.removesuffix(".").lower()
        try:
            name = name if name.isascii() else name.encode("idna").decode("ascii").lower()
        except UnicodeError:
            raise self.refusal(raw) from None
        # A last label of digits alone is no name but an address, however it is written (RFC 3696, section 2).
        if not _DOMAIN.fullmatch(name) or name.rpartition(".")[2].isdigit():
            raise self.refusal(raw)
        return name


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ListFile(Kind):
    """A file of prefixes, one per line."""

    def _expected(self) -> str:
        return 'the path of a file of prefixes such as "/etc/polywan/lists/cdn.txt"'

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^/", "maxLength": _LONGEST_PATH}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str) or not raw or not raw.isprintable() or len(raw) > _LONGEST_PATH:
            raise self.refusal(raw)
        if not PurePosixPath(raw).is_absolute():
            raise self.refusal(raw, "write the absolute path")
        return raw


@dataclass(frozen=True, slots=True)
class Span(Spelled):
    """Days and hours of the week in local time."""

    def _expected(self) -> str:
        return 'days and hours such as "mon-fri 08:00-18:00", "sat,sun" or "22:00-06:00"'

    def _schema(self) -> dict[str, Any]:
        day = f"({'|'.join([*_LONG_DAYS, *DAYS])})"
        days, hours = f"{day}(-{day})?(,{day}(-{day})?)*", f"({_CLOCK.pattern})-({_CLOCK.pattern})"
        return {"type": "string", "pattern": f"^({days}|{hours}|{days} {hours})$"}

    def _parse(self, raw: object) -> Window:
        if isinstance(raw, Window):
            return raw
        if not isinstance(raw, str) or not (words := raw.lower().split()):
            raise self.refusal(raw)
        hours = words.pop() if ":" in words[-1] else "00:00-24:00"
        days = words.pop() if words else "mon-sun"
        if words:
            raise self.refusal(raw, "use one space, between days and hours; write several spans as a list")
        start, _, end = hours.partition("-")
        if not _CLOCK.fullmatch(start) or not _CLOCK.fullmatch(end) or start == "24:00":
            raise self.refusal(raw, "write hours with minutes, from 00:00 to 24:00")
        return Window(self._days(days, raw), _seconds(start), _seconds(end))

    def _days(self, text: str, raw: object) -> tuple[int, ...]:
        found: set[int] = set()
        for part in text.split(","):
            first, dash, last = part.partition("-")
            unknown = [name for name in (first, last if dash else first) if name not in _DAY_NUMBERS]
            if unknown:
                raise self.refusal(raw, closest(unknown[0], _DAY_NUMBERS))
            low, high = _DAY_NUMBERS[first], _DAY_NUMBERS[last if dash else first]
            found |= {day % 7 for day in range(low, (high if high >= low else high + 7) + 1)}
        return tuple(sorted(found))


def _seconds(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return 3600 * int(hours) + 60 * int(minutes)
