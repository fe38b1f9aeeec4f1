"""Values of the network in the file: addresses, prefixes, port ranges; and the shapes that hold several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import Any, Final, Literal, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from polywan.config.faults import shown
from polywan.config.kinds.scalars import Kind, Rate, rejection

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
PortRange: TypeAlias = tuple[int, int]

_DEVICE: Final = re.compile(r"[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]{0,14}")
_NO_ALIAS: Final = 'the part after the colon is an address label: name the device only, and set "source" to the address'
_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_RANGE: Final = re.compile(r" *([0-9A-Fa-f:.]+) *- *([0-9A-Fa-f:.]+) *")
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)(?=.*[A-Za-z])[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?\.?")
_NAMES: Final = {4: "an IPv4 address", 6: "an IPv6 address", 0: "an IP address"}


@dataclass(frozen=True, slots=True)
class Device(Kind):
    """The name of a network device.

    The kernel takes more, but no slash, colon or space (dev_valid_name in its net/core/dev.c), and not the
    names that have a meaning in sysctl paths. What passes here is safe in nft text and in argument lists.
    """

    loopback: bool = True

    def _expected(self) -> str:
        return "a network device as `ip link` shows it (up to 15 letters, digits or _.@+-)"

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_DEVICE.pattern}$"}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise self.refusal(raw)
        if raw in {".", "..", "all", "default"} or (raw == "lo" and not self.loopback):
            raise rejection(f"{shown(raw)} cannot be used as a device here", f"expected {self.expected}")
        if not _DEVICE.fullmatch(raw):
            raise self.refusal(raw, _NO_ALIAS if ":" in raw else "")
        return raw


@dataclass(frozen=True, slots=True)
class AddressValue(Kind):
    """The address of one host. `version` 0 takes both families; `words` may stand instead."""

    version: Literal[0, 4, 6] = 0
    words: tuple[str, ...] = ()
    no_names: str = "names are not looked up; write the address"

    def _expected(self) -> str:
        return " or ".join([_NAMES[self.version], *(f'"{w}"' for w in self.words)])

    def _schema(self) -> dict[str, Any]:
        forms: list[dict[str, Any]] = [
            {"type": "string", "format": f"ipv{v}"} for v in (4, 6) if self.version in (0, v)
        ]
        forms += [{"type": "string", "enum": list(self.words)}] if self.words else []
        return forms[0] if len(forms) == 1 else {"anyOf": forms}

    def _parse(self, raw: object) -> IPAddress | str:
        if isinstance(raw, IPv4Address | IPv6Address):
            return self._checked(raw)
        if not isinstance(raw, str):
            raise self.refusal(raw)
        if raw in self.words:
            return raw
        found: IPAddress | None = None
        if "%" in raw:
            raise self.refusal(raw, "remove the % part: the interface is already known")
        with suppress(ValueError):
            found = ip_address(raw)
        if found is not None:
            return self._checked(found)
        if "/" in raw:
            raise self.refusal(raw, "a single address has no prefix length")
        raise self.refusal(raw, self.no_names if _HOST_NAME.fullmatch(raw) else "")

    def _checked(self, found: IPAddress) -> IPAddress:
        text = str(found)
        if self.version not in (0, found.version):
            other = "gateway6" if found.version == 6 else "gateway"
            raise self.refusal(text, f"an IPv{found.version} gateway belongs in {other}" if self.words else "")
        if isinstance(found, IPv6Address):
            if found.scope_id is not None:
                raise self.refusal(text, "remove the % part: the interface is already known")
            if found.ipv4_mapped:
                raise self.refusal(text, f'write "{found.ipv4_mapped}"')
        if found.is_multicast or found.is_unspecified or found.is_loopback or text == "255.255.255.255":
            raise rejection(f"expected the address of one host on the network, got {shown(text)}")
        return found


@dataclass(frozen=True, slots=True)
class Network(Kind):
    """A prefix; an address without a length is a prefix of that one host. `version` 0 takes both families.

    With `ranges`, "FIRST-LAST" is the prefixes that make it up, as a tuple: `OneOrMany` puts them into its list.
    """

    version: Literal[0, 6] = 0
    ranges: bool = False

    def _expected(self) -> str:
        return (
            'an IPv6 prefix such as "2001:db8:a::/56"'
            if self.version
            else 'an address or prefix such as "192.168.15.0/24"'
        )

    def _schema(self) -> dict[str, Any]:
        more = "(/[0-9]{1,3}|-[0-9A-Fa-f:.]+)?" if self.ranges else "(/[0-9]{1,3})?"
        return {"type": "string", "pattern": f"^[0-9A-Fa-f:.]+{more}$"}

    def _parse(self, raw: object) -> IPNetwork | tuple[IPNetwork, ...]:
        if self.ranges and isinstance(raw, str) and (found := _RANGE.fullmatch(raw)):
            return self._spanned(raw, found[1], found[2])
        return self._prefix(raw)

    def _spanned(self, raw: str, first: str, last: str) -> tuple[IPNetwork, ...]:
        if last.isdecimal() and first.count(".") == 3:
            raise rejection(
                f"{shown(raw)} is not a range", f'did you mean "{first}-{first.rpartition(".")[0]}.{last}"?'
            )
        try:
            low, high = ip_address(first), ip_address(last)
        except ValueError:
            raise self.refusal(raw) from None
        if low.version != high.version:
            raise rejection(f"{shown(raw)} mixes address families")
        if int(low) > int(high):
            raise rejection(f"{shown(raw)} ends before it begins", f'did you mean "{high}-{low}"?')
        return tuple(summarize_address_range(low, high))

    def _prefix(self, raw: object) -> IPNetwork:
        if isinstance(raw, IPv4Network | IPv6Network):
            return self._checked(raw)
        if isinstance(raw, IPv4Address | IPv6Address):
            raw = str(raw)
        if not isinstance(raw, str):
            raise self.refusal(raw)
        host, slash, length = raw.partition("/")
        if "%" in raw or (slash and not re.fullmatch("[0-9]{1,3}", length)):
            raise self.refusal(raw, self._rewritten(raw))
        found: IPNetwork | None = None
        with suppress(ValueError):
            found = ip_network(raw)
        if found is not None:
            return self._checked(found)
        hint = self._rewritten(raw)
        if hint:
            raise rejection(f"{shown(raw)} has bits set beyond its prefix length", hint)
        named = _HOST_NAME.fullmatch(host) is not None
        raise self.refusal(raw, "names are not looked up; write the address" if named else "")

    def _checked(self, found: IPNetwork) -> IPNetwork:
        if self.version not in (0, found.version):
            raise self.refusal(str(found))
        return found

    def _rewritten(self, raw: str) -> str:
        """Say how the same would be written as a prefix, if it is one at all."""
        try:
            return "" if "%" in raw else f'did you mean "{ip_network(raw, strict=False)}"?'
        except ValueError:
            return ""


@dataclass(frozen=True, slots=True)
class Ports(Kind):
    """Port numbers and ranges, kept as sorted inclusive ranges that do not touch."""

    def _expected(self) -> str:
        return 'ports from 1 to 65535: 443, "80,443", "1000-2000" or a list of these'

    def _schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": 1, "maximum": 65535}
        text = {"type": "string", "pattern": "^ *[0-9]{1,5}(-[0-9]{1,5})?( *, *[0-9]{1,5}(-[0-9]{1,5})?)* *$"}
        return {"anyOf": [number, text, {"type": "array", "minItems": 1, "items": {"anyOf": [number, text]}}]}

    def _parse(self, raw: object) -> tuple[PortRange, ...]:
        if raw == []:
            raise self.refusal(raw, "remove the key to match every port")
        items = raw if isinstance(raw, list | tuple) else (raw,)
        return merged([r for item in items for r in self._ranges(item)])

    def _ranges(self, item: object) -> list[PortRange]:
        match item:
            case bool():
                raise self.refusal(item)
            case int():
                return [self._range(item, item, item)]
            case (int(low), int(high)) if isinstance(item, tuple):
                return [self._range(low, high, item)]
            case str():
                return [self._word(word.strip(), item) for word in item.split(",")]
            case _:
                raise self.refusal(item)

    def _word(self, word: str, whole: str) -> PortRange:
        found = _PORT.fullmatch(word)
        if not found:
            raise self.refusal(whole, "write a range with a dash" if ":" in word else "")
        low = int(found[1])
        return self._range(low, int(found[2] or low), whole)

    def _range(self, low: int, high: int, whole: object) -> PortRange:
        if not (1 <= low <= 65535 and 1 <= high <= 65535):
            raise self.refusal(whole)
        if low > high:
            raise rejection(f"the range {low}-{high} is reversed", f'did you mean "{high}-{low}"?')
        return (low, high)


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Sort inclusive ranges and join those that touch: nft(8) refuses sets whose intervals overlap."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """Around a tuple: a single value may be written without brackets; duplicates are dropped if it is `distinct`.

    Attributes:
        empty: a list without values means something else than no list.
    """

    networks: bool = False
    distinct: bool = True
    empty: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = core_schema.no_info_before_validator_function(self._listed, handler(source))
        return core_schema.no_info_after_validator_function(self._distinct, listed)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        array = handler(core)
        return {"anyOf": [array["items"], array if self.empty else {**array, "minItems": 1}]}

    def _listed(self, raw: object) -> tuple[object, ...]:
        if raw == [] and not self.empty:
            raise rejection("expected at least one value, got an empty list", "remove the key instead")
        return tuple(raw) if isinstance(raw, list | tuple) else (raw,)

    def _distinct(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.distinct:
            return values
        if self.networks:
            values = tuple(n for value in values for n in (value if isinstance(value, tuple) else (value,)))
        distinct = tuple(dict.fromkeys(values))
        return _outermost(distinct) if self.networks and len(distinct) > 1 else distinct


def _outermost(networks: tuple[IPNetwork, ...]) -> tuple[IPNetwork, ...]:
    """Drop prefixes that lie within another one: nft(8) refuses sets whose intervals overlap."""
    blocks = {(n.version, n.prefixlen, int(n.network_address) >> n.max_prefixlen - n.prefixlen) for n in networks}
    lengths = {v: sorted({length for version, length, _ in blocks if version == v}) for v in (4, 6)}

    def covered(n: IPNetwork) -> bool:
        bits = int(n.network_address)
        shorter = (length for length in lengths[n.version] if length < n.prefixlen)
        return any((n.version, length, bits >> n.max_prefixlen - length) in blocks for length in shorter)

    return tuple(n for n in networks if not covered(n))


@dataclass(frozen=True, slots=True)
class BothWays:
    """Around `Bandwidth`: a plain bandwidth stands for both directions."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._table, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [Rate().schema, handler(core)]}

    @staticmethod
    def _table(raw: object) -> object:
        if isinstance(raw, str | int | float):
            rate = Rate().parse(raw)
            return {"down": rate, "up": rate}
        return raw
