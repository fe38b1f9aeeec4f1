"""Read our nftables table straight from netlink: chains with their hooks, rules by comment, sets and simple elements.

libnftables would decode every rule into JSON for this, complain on stderr about statements that its JSON cannot say
(`update @map`), and load the elements of every set of the table first: half a second beside a list of 50 000
prefixes. Comments are all that is compared of a rule (`core/ruleset/model.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.core.ruleset.model import TABLE, ChainState, Hook, Key, unread
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import NetlinkSocket, attribute, attributes, text
from polywan.kernel.nft.elements import INTEGER, KEY_TYPES, VERDICTS, decode

TABLE_NAME: Final = TABLE.split()[1]
"""Name of our table; its family is inet."""

# linux/netfilter/nfnetlink.h, nf_tables.h; the first byte of struct nfgenmsg is the family.
_INET: Final = b"\x01\0\0\0"
_SUBSYSTEM: Final = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = (_SUBSYSTEM | number for number in (1, 4, 7, 10, 13))
_OF_TABLE: Final = 1
_TABLE_NAME, _TABLE_FLAGS = 1, 2
_DORMANT: Final = 1
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_POLICIES: Final = ("drop", "accept")
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_USERDATA = 2, 7
_SET_NAME, _SET_FLAGS, _KEY_TYPE, _DATA_TYPE = 2, 3, 4, 6
_ANONYMOUS, _INTERVAL, _MAP, _OBJECT, _CONCATENATED = 1, 4, 8, 0x40, 0x80
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_COMMENT: Final = 0


class TableSummary(NamedTuple):
    """The table without elements, but for those of sets and verdict maps with a key of one known field.

    Attributes:
        elements: by the name of the set or map; a set's verdicts are empty.
    """

    chains: dict[str, ChainState]
    sets: tuple[str, ...]
    maps: tuple[str, ...]
    elements: dict[str, dict[Key, str]]


class _Shape(NamedTuple):
    name: str
    is_map: bool
    key_type: int
    simple: bool


def read() -> TableSummary | None:
    """Return the outline of our table; None when it has no chains, or when the kernel passes over it (dormant).

    Raises:
        KernelError: the kernel refused.
    """
    with netfilter() as netlink:
        ours = _INET + attribute(_OF_TABLE, TABLE_NAME.encode() + b"\0")
        hooks = dict(_chains(message.body for message in netlink.snapshot(_GET_CHAIN, _INET)))
        if not hooks or any(_dormant(message.body) for message in netlink.snapshot(_GET_TABLE, _INET)):
            return None
        rules: dict[str, list[str]] = {name: [] for name in hooks}
        for chain, comment in _rules(message.body for message in netlink.snapshot(_GET_RULE, ours)):
            rules.setdefault(chain, []).append(comment)
        shapes = list(_shapes(message.body for message in netlink.snapshot(_GET_SET, ours)))
        elements = {
            shape.name: _elements(netlink, ours, shape) for shape in shapes if shape.simple and not unread(shape.name)
        }
    return TableSummary(
        chains={name: ChainState(tuple(rules[name]), hook) for name, hook in hooks.items()},
        sets=tuple(shape.name for shape in shapes if not shape.is_map),
        maps=tuple(shape.name for shape in shapes if shape.is_map),
        elements=elements,
    )


def verdicts(table: str, name: str) -> dict[Key, str]:
    """Return the elements of a verdict map of numbers.

    Args:
        table: family and name of its table; the family is inet.
        name: the map's.

    Raises:
        KernelError: the kernel refused, or there is none.
    """
    with netfilter() as netlink:
        theirs = _INET + attribute(_OF_TABLE, table.split()[1].encode() + b"\0")
        return _elements(netlink, theirs, _Shape(name, is_map=True, key_type=INTEGER, simple=True))


def _dormant(body: bytes) -> bool:
    found = attributes(body, 4)
    flags = int.from_bytes(found.get(_TABLE_FLAGS, b""), "big")
    return text(found.get(_TABLE_NAME, b"")) == TABLE_NAME and bool(flags & _DORMANT)


def _elements(netlink: NetlinkSocket, table: bytes, shape: _Shape) -> dict[Key, str]:
    found = netlink.snapshot(_GET_ELEMENTS, table + attribute(_SET_NAME, shape.name.encode() + b"\0"))
    return dict(pair for message in found for pair in decode(message.body, shape.key_type))


def _ours(bodies: Iterator[bytes]) -> Iterator[dict[int, bytes]]:
    for body in bodies:
        found = attributes(body, 4)
        if text(found.get(_OF_TABLE, b"")) == TABLE_NAME:
            yield found


def _chains(bodies: Iterator[bytes]) -> Iterator[tuple[str, Hook | None]]:
    for found in _ours(bodies):
        hook = None
        if _CHAIN_HOOK in found:
            where = attributes(found[_CHAIN_HOOK])
            number = int.from_bytes(where.get(_HOOK_NUMBER, b""), "big")
            priority = int.from_bytes(where.get(_HOOK_PRIORITY, b""), "big", signed=True)
            name = _HOOKS[number] if number < len(_HOOKS) else str(number)
            policy = _POLICIES[int.from_bytes(found.get(_CHAIN_POLICY, b"\x01"), "big") & 1]
            hook = Hook(text(found.get(_CHAIN_TYPE, b"")), name, priority, policy)
        yield text(found.get(_CHAIN_NAME, b"")), hook


def _rules(bodies: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    for found in _ours(bodies):
        yield text(found.get(_RULE_CHAIN, b"")), comment_in(found.get(_RULE_USERDATA, b""))


def comment_in(userdata: bytes) -> str:
    """Return the comment among a rule's user data (type, length, value; libnftnl's udata.h); empty without one."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            return text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _shapes(bodies: Iterator[bytes]) -> Iterator[_Shape]:
    for found in _ours(bodies):
        flags, key, data = (int.from_bytes(found.get(kind, b""), "big") for kind in (_SET_FLAGS, _KEY_TYPE, _DATA_TYPE))
        if flags & _ANONYMOUS:
            continue
        odd = flags & (_INTERVAL | _OBJECT | _CONCATENATED) or (flags & _MAP and data != VERDICTS)
        yield _Shape(text(found.get(_SET_NAME, b"")), bool(flags & _MAP), key, key in KEY_TYPES and not odd)
