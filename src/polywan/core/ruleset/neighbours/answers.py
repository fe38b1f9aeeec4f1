"""A UDP service of this box that names no source answers with the address that it was asked at.

Bound to no address, and without IP_PKTINFO, it lets the kernel choose: main's default, whoever asked. By any other
uplink the asker would not know the answer, and to connection tracking it would be a connection of its own. So who asked
where is remembered, and an answer gets that address before it is tracked. What names its source is left as it is.
"""

from __future__ import annotations

from typing import Final

from polywan.core.ruleset.model import Chain, Hook, NftMap, NftRule, NftSet

_BEFORE_TRACKING: Final = -301
_FILTER: Final = 0

ASKERS: Final = 65536
"""Askers (address and port) that are remembered; the answers of any more are as the kernel makes them."""

# As long as connection tracking remembers an exchange of datagrams (nf_conntrack_udp_timeout_stream).
_ASKED: Final = "flags dynamic,timeout; timeout 2m"

_AT: Final = "ip saddr . udp sport . udp dport"
_TO: Final = "ip daddr . udp dport . udp sport"


def answer_chains() -> dict[str, Chain]:
    """Return the chains that remember and that answer; only UDP of the box itself meets more than their first rule.

    IPv4 only: nft 1.0.6 ends the process over a map whose key and value are as long as IPv6 needs them.
    """
    # An update starts an element's time again, but leaves its value: who asks at two addresses is in the set with both.
    asked = (
        NftRule("meta l4proto != udp accept", "answers itself"),
        NftRule("iifname != @uplinks accept", "not from outside"),
        NftRule("ct direction reply accept", "an answer to this box"),
        NftRule("meta nfproto ipv6 accept", "not remembered"),
        NftRule("fib daddr type != local accept", "broadcast: no address of this box was asked"),
        # A socket with a source of its own needs no help; and late answers to it, when tracking has forgotten what they
        # answer, come as if they asked.
        NftRule("socket wildcard 1 goto remember", "a socket that is bound to no address"),
    )
    remember = (
        NftRule(f"update @asked_pairs {{ {_AT} . ip daddr }}", "asked here"),
        NftRule(f"update @asked_at {{ {_AT} : ip daddr }}", "asked here first"),
    )
    answers = (
        NftRule("meta l4proto != udp accept", "names its source"),
        NftRule(f"{_TO} . ip saddr @asked_pairs accept", "the address that was asked"),
        NftRule(f"ip saddr set {_TO} map @asked_at", "names no source: answers where it was asked"),
    )
    return {
        "remember": Chain(remember),
        "asked": Chain(asked, Hook("filter", "input", _FILTER)),
        "answers": Chain(answers, Hook("filter", "output", _BEFORE_TRACKING)),
    }


def answer_sets() -> dict[str, NftSet]:
    """Return which askers asked at which addresses; packets fill it."""
    return {
        "asked_pairs": NftSet(f"type ipv4_addr . inet_service . inet_service . ipv4_addr; {_ASKED}; size {ASKERS};")
    }


def answer_maps() -> dict[str, NftMap]:
    """Return the address that an asker asked at first; packets fill it."""
    return {"asked_at": NftMap(f"type ipv4_addr . inet_service . inet_service : ipv4_addr; {_ASKED}; size {ASKERS};")}
