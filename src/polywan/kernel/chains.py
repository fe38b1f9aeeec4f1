"""Base chains of other programs at the hook forward, straight from netlink (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.forwarding import ForwardChain
from polywan.core.nft import TABLE
from polywan.kernel.netlink import NETFILTER, NetlinkSocket, attributes, text

_ANY_FAMILY: Final = bytes(4)
_GET_CHAIN: Final = 10 << 8 | 4
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_HOOK_NUMBER: Final = 1
_FORWARD: Final = (2).to_bytes(4, "big")
_DROP: Final = bytes(4)


def dropping() -> tuple[ForwardChain, ...]:
    """Return the chains of others at the hook forward whose policy is drop; none where the kernel does not tell."""
    with suppress(KernelError), NetlinkSocket(NETFILTER) as netlink:
        return decode(message.body for message in netlink.snapshot(_GET_CHAIN, _ANY_FAMILY))
    return ()


def decode(bodies: Iterable[bytes]) -> tuple[ForwardChain, ...]:
    """Decode NFT_MSG_NEWCHAIN messages; whatever makes no sense, or is not such a chain, is left out."""
    found = set()
    for body in bodies:
        about = attributes(body, 4)
        hook = attributes(about.get(_HOOK, b""))
        if hook.get(_HOOK_NUMBER) != _FORWARD or about.get(_POLICY) != _DROP or body[0] not in _FAMILIES:
            continue
        chain = ForwardChain(_FAMILIES[body[0]], text(about.get(_TABLE, b"")), text(about.get(_NAME, b"")))
        if f"{chain.family} {chain.table}" != TABLE:
            found.add(chain)
    return tuple(sorted(found, key=str))
