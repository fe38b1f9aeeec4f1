"""Read the outline of our nftables table straight from netlink: chains with their hooks, rules by comment, sets.

libnftables would decode every rule into JSON for this, complain on stderr about statements that its JSON cannot say
(`update @map`), and load the elements of every set of the table first: half a second beside a list of 50 000
prefixes. Comments are all that is compared of a rule (`core/nft.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.core.nft import TABLE, ChainState, Hook
from polywan.kernel.netlink import NETFILTER, NetlinkSocket, attribute, attributes, text

NAME: Final = TABLE.split()[1]
"""Name of our table; its family is inet."""

# linux/netfilter/nfnetlink.h, nf_tables.h; the first byte of struct nfgenmsg is the family.
_INET: Final = b"\x01\0\0\0"
_SUBSYSTEM: Final = 10 << 8
_GET_CHAIN, _GET_RULE, _GET_SET = _SUBSYSTEM | 4, _SUBSYSTEM | 7, _SUBSYSTEM | 10
_OF_TABLE: Final = 1
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_USERDATA = 2, 7
_SET_NAME, _SET_FLAGS = 2, 3
_ANONYMOUS, _MAP = 1, 8
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_COMMENT: Final = 0


class Outline(NamedTuple):
    """The table without elements."""

    chains: dict[str, ChainState]
    sets: tuple[str, ...]
    maps: tuple[str, ...]


def read() -> Outline | None:
    """Return the outline of our table; None when it has no chains, as nobody but us would leave it.

    Raises:
        KernelError: the kernel refused.
    """
    with NetlinkSocket(NETFILTER) as netlink:
        ours = _INET + attribute(_OF_TABLE, NAME.encode() + b"\0")
        hooks = dict(_chains(message.body for message in netlink.snapshot(_GET_CHAIN, _INET)))
        if not hooks:
            return None
        rules: dict[str, list[str]] = {name: [] for name in hooks}
        for chain, comment in _rules(message.body for message in netlink.snapshot(_GET_RULE, ours)):
            rules.setdefault(chain, []).append(comment)
        sets = dict(_sets(message.body for message in netlink.snapshot(_GET_SET, ours)))
    return Outline(
        chains={name: ChainState(tuple(rules[name]), hook) for name, hook in hooks.items()},
        sets=tuple(name for name, is_map in sets.items() if not is_map),
        maps=tuple(name for name, is_map in sets.items() if is_map),
    )


def _ours(bodies: Iterator[bytes]) -> Iterator[dict[int, bytes]]:
    for body in bodies:
        found = attributes(body, 4)
        if text(found.get(_OF_TABLE, b"")) == NAME:
            yield found


def _chains(bodies: Iterator[bytes]) -> Iterator[tuple[str, Hook | None]]:
    for found in _ours(bodies):
        hook = None
        if _CHAIN_HOOK in found:
            where = attributes(found[_CHAIN_HOOK])
            number = int.from_bytes(where.get(_HOOK_NUMBER, b""), "big")
            priority = int.from_bytes(where.get(_HOOK_PRIORITY, b""), "big", signed=True)
            name = _HOOKS[number] if number < len(_HOOKS) else str(number)
            hook = Hook(text(found.get(_CHAIN_TYPE, b"")), name, priority)
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


def _sets(bodies: Iterator[bytes]) -> Iterator[tuple[str, bool]]:
    for found in _ours(bodies):
        flags = int.from_bytes(found.get(_SET_FLAGS, b""), "big")
        if not flags & _ANONYMOUS:
            yield text(found.get(_SET_NAME, b"")), bool(flags & _MAP)
