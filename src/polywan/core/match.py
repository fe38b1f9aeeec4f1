"""Turn the conditions of a steering rule into nft match text.

A condition that takes two forms (IPv4 and IPv6 prefixes) makes two texts: the rule matches when any of them does.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import collapse_addresses

from polywan.config import Match, SteeringRule
from polywan.core.net import FAMILIES, Family, IPNetwork


def match_texts(rule: SteeringRule) -> Iterator[str]:
    """Yield the nft matches of a rule, one per family where addresses demand it; "" matches everything."""
    families = [f for f in FAMILIES if rule.family in (None, f.nfproto)]
    if not (rule.from_ or rule.to or rule.not_.from_ or rule.not_.to):
        prefix = "" if rule.family is None else f"meta nfproto {families[0].nfproto} "
        yield (prefix + _rest(rule)).strip()
        return
    for family in families:
        addresses = _addresses(rule, family)
        if addresses is not None:
            # Naming the family keeps a rule of negated addresses from matching the other one.
            yield f"meta nfproto {family.nfproto} {addresses} {_rest(rule)}".strip().replace("  ", " ")


def _addresses(rule: SteeringRule, family: Family) -> str | None:
    """Address conditions in one family; None when the family cannot match at all."""
    word = "ip" if family is Family.V4 else "ip6"
    parts = []
    for direction, wanted, unwanted in (
        ("saddr", rule.from_, rule.not_.from_),
        ("daddr", rule.to, rule.not_.to),
    ):
        own = [n for n in wanted if n.version == family]
        if wanted and not own:
            return None
        if own:
            parts.append(f"{word} {direction} {_networks(own)}")
        if excluded := [n for n in unwanted if n.version == family]:
            parts.append(f"{word} {direction} != {_networks(excluded)}")
    return " ".join(parts)


def _networks(networks: list[IPNetwork]) -> str:
    # nft refuses overlapping intervals in one set; all networks here are of one family.
    return "{ " + ", ".join(map(str, collapse_addresses(networks))) + " }"  # type: ignore[type-var]  # one family


def _rest(rule: SteeringRule) -> str:
    parts = [*_conditions(rule, rule.protocol, ""), *_conditions(rule.not_, rule.protocol, "!= ")]
    return " ".join(parts)


def _conditions(match: Match, protocol: str | None, sign: str) -> Iterator[str]:
    if match.in_interface:
        yield _interfaces(match, sign)
    if match.protocol is not None:
        # Each family has an ICMP of its own; the user means both.
        number = "{ icmp, ipv6-icmp }" if match.protocol == "icmp" else match.protocol
        yield f"meta l4proto {sign}{number}"
    for word, ports in (("sport", match.source_port), ("dport", match.port)):
        if ports:
            yield f"{protocol} {word} {sign}{_ports(ports)}"


def _interfaces(match: Match, sign: str) -> str:
    names = ", ".join(f'"{name}"' for name in match.in_interface)
    return f"iifname {sign}{{ {names} }}"


def _ports(ports: tuple[tuple[int, int], ...]) -> str:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ports):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return "{ " + ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in merged) + " }"
