"""Conditions of nft(8), as libnftables-json(5) has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Final, Literal, TypeAlias, get_args

from polywan.core.firewall.model import (
    ConnectionState,
    Device,
    Direction,
    End,
    MarkIs,
    MarkOf,
    Match,
    Other,
    Port,
    Prefix,
    Protocol,
    State,
    Statistic,
    TcpFlags,
)
from polywan.core.firewall.nftables_text import expression_text
from polywan.core.firewall.values import protocol_name
from polywan.core.net import FAMILIES, PROTOCOLS, Family, IPNetwork

Elements: TypeAlias = Mapping[str, Sequence[object]]
"""Sets and maps of a table by name, with what is in them."""

_STATES: Final[Mapping[str, ConnectionState]] = {state: state for state in get_args(ConnectionState)}
_DIRECTIONS: Final[Mapping[object, Literal["original", "reply"]]] = {"original": "original", "reply": "reply"}
_DEVICES: Final[Mapping[str, Literal["in", "out"]]] = {"iif": "in", "iifname": "in", "oif": "out", "oifname": "out"}
_ENDS: Final[Mapping[str, End]] = {"saddr": "source", "daddr": "destination", "sport": "source", "dport": "destination"}
_TCP_FLAGS: Final = frozenset({"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"})
_REFUSED: Final = (ValueError, TypeError, KeyError, IndexError)


def conditions(operand: object, operator: str, right: object, sets: Elements) -> list[Match]:
    """Return what ``operand operator right`` asks of a packet; what is not known becomes `Other`."""
    text = expression_text({"match": {"op": operator, "left": operand, "right": right}})
    implied = _implied(operand)
    try:
        found = _known(operand, operator, right, sets)
    except _REFUSED:
        found = None
    if found and isinstance(found[0], Prefix) and found[0].networks:
        return found  # its networks have a family
    return [*implied, *(found if found is not None else [Other(text)])]


def elements_of(right: object, sets: Elements) -> list[object]:
    """Return the elements of a set, or the single value that stands in the place of one.

    Raises:
        KeyError: a named set is not known, or packets fill it.
    """
    match right:
        case str() if right.startswith("@"):
            return [_plain(element) for element in sets[right[1:]]]
        case {"set": list(elements)}:
            return [_plain(element) for element in elements]
    return [_plain(right)]


def _plain(element: object) -> object:
    match element:
        case {"elem": {"val": value}}:
            return value
        case [key, value]:
            return [_plain(key), value]
    return element


def _implied(operand: object) -> list[Match]:
    """Return what a packet has to be for its header to be looked at."""
    match operand:
        case {"&": [inner, *_]}:
            return _implied(inner)
        case {"payload": {"protocol": "ip" | "ip6" as name}}:
            return [_of_family(Family.V4 if name == "ip" else Family.V6)]
        case {"payload": {"protocol": str(name)}} if name in PROTOCOLS:
            return [Protocol((name,))]
    return []


def _of_family(family: Family, *, invert: bool = False) -> Prefix:
    others = [other for other in FAMILIES if other is not family]
    return Prefix("source", ((others[0] if invert else family).default,))


def _known(operand: object, operator: str, right: object, sets: Elements) -> list[Match] | None:
    invert = operator == "!="
    match operand:
        case {"numgen": {"mode": str(mode), "mod": int(every), **rest}}:
            return [_statistic(mode, every, rest.get("offset", 0), operator, right)]
        case {"payload": {"protocol": str(name), "field": "sport" | "dport" as field}} if name in (*PROTOCOLS, "th"):
            return [Port(_ENDS[field], _ranges(operator, elements_of(right, sets)), invert)]
        case {"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, examined]} if operator in ("==", "!="):
            return [TcpFlags(_flags(examined), _flags(right), invert)]
        case {"payload": {"protocol": "tcp", "field": "flags"}} if operator in ("==", "!="):
            return [TcpFlags(_TCP_FLAGS, _flags(right), invert)]
        case {"payload": {"protocol": "tcp", "field": "flags"}} if operator == "in" and isinstance(right, str):
            return [TcpFlags(_flags(right), _flags(right))]
    if operator not in ("==", "!=", "in"):
        return None
    for convert in (_mark, _connection, _of_meta, _address):
        if (found := convert(operand, elements_of(right, sets), operator, invert=invert)) is not None:
            return [found]
    return None


def _mark(operand: object, elements: list[object], operator: str, *, invert: bool) -> Match | None:
    mask = 0xFFFF_FFFF
    match operand:
        case {"&": [inner, int(mask)]}:
            operand = inner
    of = mark_of(operand)
    if of is None or operator == "in":
        return None
    (value,) = elements
    return MarkIs(of, _number(value), mask, invert)


def mark_of(expression: object) -> MarkOf | None:
    """Return whose mark an expression is."""
    match expression:
        case {"meta": {"key": "mark"}}:
            return "packet"
        case {"ct": {"key": "mark"}}:
            return "connection"
    return None


def _connection(operand: object, elements: list[object], operator: str, *, invert: bool) -> Match | None:
    match operand:
        case {"ct": {"key": "state"}}:
            words = [word for element in elements for word in (element if isinstance(element, list) else [element])]
            if operator != "in" and len(words) > len(elements):  # all of them at once
                return None
            return State(frozenset(_STATES[str(word)] for word in words), invert)
        case {"ct": {"key": "direction"}}:
            (direction,) = elements
            return Direction(_DIRECTIONS[direction], invert)
    return None


def _of_meta(operand: object, elements: list[object], operator: str, *, invert: bool) -> Match | None:
    match operand:
        case {"meta": {"key": "iif" | "iifname" | "oif" | "oifname" as key}} if operator != "in":
            return Device(_DEVICES[key], tuple(_device(element) for element in elements), invert)
        case {"meta": {"key": "l4proto"}} | {"payload": {"protocol": "ip", "field": "protocol"}}:
            return Protocol(tuple(protocol_name(str(element)) for element in elements), invert)
        case {"meta": {"key": "nfproto"}}:
            (family,) = elements
            return _of_family({"ipv4": Family.V4, "ipv6": Family.V6}[str(family)], invert=invert)
    return None


def _device(element: object) -> str:
    if not isinstance(element, str) or "\\" in element:  # an index without a device; a `*` that stands for itself
        raise ValueError(element)
    return element


def _address(operand: object, elements: list[object], operator: str, *, invert: bool) -> Match | None:
    match operand:
        case {"payload": {"protocol": "ip" | "ip6" as header, "field": "saddr" | "daddr" as field}} if operator != "in":
            networks = tuple(network for element in elements for network in _networks(element))
            if any(network.version != (4 if header == "ip" else 6) for network in networks):
                raise ValueError(networks)
            return Prefix(_ENDS[field], networks, invert)
    return None


def _networks(element: object) -> list[IPNetwork]:
    match element:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return [ip_network(f"{address}/{length}", strict=False)]
        case {"range": [str(first), str(last)]}:
            return list(summarize_address_range(ip_address(first), ip_address(last)))
        case str():
            return [ip_network(element)]
    raise ValueError(element)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


_COMPARED: Final[Mapping[str, Callable[[int], tuple[int, int]]]] = {
    "<": lambda number: (0, number - 1),
    "<=": lambda number: (0, number),
    ">": lambda number: (number + 1, 0xFFFF),
    ">=": lambda number: (number, 0xFFFF),
}


def _ranges(operator: str, elements: list[object]) -> tuple[tuple[int, int], ...]:
    if operator in _COMPARED:
        (number,) = elements
        return (_COMPARED[operator](_number(number)),)
    return tuple(_range(element) for element in elements)


def _range(element: object) -> tuple[int, int]:
    match element:
        case {"range": [first, last]}:
            return _number(first), _number(last)
    return _number(element), _number(element)


def _flags(value: object) -> frozenset[str]:
    match value:
        case {"|": list(words)} | list(words):
            flags = frozenset(flag for word in words for flag in _flags(word))
        case _:
            flags = frozenset({str(value)})
    if not flags <= _TCP_FLAGS:
        raise ValueError(value)
    return flags


def _statistic(mode: str, every: int, offset: object, operator: str, right: object) -> Match:
    elements = elements_of(right, {})
    ranges = _ranges(operator, elements)
    count = sum(max(0, min(last, every - 1) - first + 1) for first, last in ranges)
    if offset != 0 or every < 1 or operator == "in":
        raise ValueError(offset)
    invert = operator == "!="
    if mode == "inc" and operator in ("==", "!=") and len(elements) == 1 and isinstance(elements[0], int):
        return Statistic("nth", every, elements[0], count / every, invert)
    return Statistic("random", probability=count / every, invert=invert)
