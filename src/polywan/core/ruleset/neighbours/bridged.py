"""Frames that a bridge of this box forwards are the bridge's: not chosen for, not translated, not held back.

With bridge netfilter (``net.bridge.bridge-nf-call-iptables``, which container engines switch on), IPv4 and IPv6 in such
frames pass our hooks as if the bridge's device had received them and were sending them. What is for this box is sent
to that device's own link-layer address. The packet's type does not tell: bridge netfilter writes "host" over it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from polywan.core.ruleset.model import NftRule
from polywan.core.world.observed import Observed

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@+-]{1,15}")
"""Names that nft reads as they are; the kernel takes others, too."""

_WHY: Final = "a bridge forwards it: not routed here"


def bridged_in(observed: Observed) -> tuple[NftRule, ...]:
    """Return what lets bridged frames pass in prerouting; nothing while there is no bridge."""
    return _rules(_bridges(observed))[0]


def bridged_out(observed: Observed) -> tuple[NftRule, ...]:
    """Return what lets bridged frames pass in postrouting; nothing while there is no bridge."""
    return _rules(_bridges(observed))[1]


def _bridges(observed: Observed) -> tuple[tuple[str, str], ...]:
    """Names and link-layer addresses."""
    found = (link for link in observed.links.values() if link.kind == "bridge" and link.mac)
    return tuple(sorted((link.name, link.mac) for link in found if _PLAIN.fullmatch(link.name)))


@lru_cache(maxsize=4)
def _rules(bridges: tuple[tuple[str, str], ...]) -> tuple[tuple[NftRule, ...], tuple[NftRule, ...]]:
    if not bridges:
        return (), ()
    names = ", ".join(f'"{name}"' for name, _ in bridges)
    ends = ", ".join(f'"{name}" . {mac}' for name, mac in bridges)
    arriving = NftRule(f"iifname {{ {names} }} iifname . ether daddr != {{ {ends} }} accept", _WHY)
    # There the input device is gone, but not the frame's header, which packets of this box do not have yet.
    outgoing = NftRule(f"iif 0 oifname {{ {names} }} ether saddr != 00:00:00:00:00:00 accept", _WHY)
    return (arriving,), (outgoing,)
