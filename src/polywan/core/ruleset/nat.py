"""Address translation per uplink: what leaves by an uplink carries a source that its provider accepts.

IPv6 sources are treated by prefix (docs/design/ipv6.md): those of the uplink's own prefix leave untouched, others have
their prefix exchanged where the uplink has one (NPTv6), and only the rest is masqueraded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, collapse_addresses
from typing import Final

from polywan.core.net import FAMILIES
from polywan.core.policy.selection import Choice
from polywan.core.policy.slots import slots
from polywan.core.resolved import Resolved
from polywan.core.ruleset.inputs import ROOM, RulesetInput, by_mark
from polywan.core.ruleset.lent_addresses import lent_addresses
from polywan.core.ruleset.model import Chain, Hook, Key, NftRule, NftSet
from polywan.core.ruleset.neighbours.bridged import bridged_out
from polywan.core.ruleset.neighbours.ipsec import not_translated
from polywan.core.world.observed import Observed
from polywan.core.world.prefixes6 import Side, claims, exchanges, inside_of, sides
from polywan.core.world.shared_device import gateway_of, sole_router

SRCNAT: Final = 100

Members = tuple[tuple[str, int], ...]
"""Uplinks with their weights, as in `Choice`."""


def translation_chains(inputs: RulesetInput) -> dict[str, Chain]:
    """Return the chains that translate source addresses."""
    return {"nat": Chain(tuple(_nat(inputs)), Hook("nat", "postrouting", SRCNAT))}


def translation_sets(inputs: RulesetInput) -> dict[str, NftSet]:
    """Return the sets of devices that translate in the same way."""
    masked: frozenset[Key] = frozenset(u.interface for u in inputs.config.uplinks.values() if u.nat == "masquerade")
    return {"masqueraded": NftSet(f"type ifname; {ROOM}", masked)}


def native_rules(inputs: RulesetInput, choice: Choice) -> Iterator[NftRule]:
    """Yield the rules by which a policy sends native IPv6 sources out by the uplink whose prefix they carry."""
    yield from _native(choice.members, _serving(sides(inputs.config, inputs.observed), choice))


def native_members(config: Resolved, observed: Observed, choice: Choice, source: IPv6Address) -> Members | None:
    """Return the uplinks that the rules before a policy's own algorithm leave to an IPv6 source.

    None: they leave it to the algorithm. Nobody: the connection is refused.
    """
    serving = _serving(sides(config, observed), choice)
    for network, names in _steered(choice.members, serving):
        if source in network:
            return tuple(member for member in choice.members if member[0] in names)
    return _others(choice.members, serving)


def _serving(known: tuple[Side, ...], choice: Choice) -> tuple[Side, ...]:
    names = {name for name, _ in choice.members}
    return tuple(side for side in known if side.name in names)


def _steered(members: Members, serving: tuple[Side, ...]) -> Iterator[tuple[IPv6Network, tuple[str, ...]]]:
    """Networks that leave by their owners, but for those that everybody has: there the algorithm may choose."""
    strict = _others(members, serving) is not None
    for network, names in claims(serving):
        if strict or len(names) < len(members):
            yield network, names


def _others(members: Members, serving: tuple[Side, ...]) -> Members | None:
    """Who may carry sources that are nobody's, when some uplink may not because it translates nothing."""
    strict = {side.name for side in serving if side.mode == "native"}
    return tuple(member for member in members if member[0] not in strict) if strict else None


@lru_cache(maxsize=64)
def _native(members: Members, serving: tuple[Side, ...]) -> tuple[NftRule, ...]:
    single: dict[str, str] = {}
    shared: dict[tuple[str, ...], list[str]] = {}
    for network, names in _steered(members, serving):
        if len(names) == 1:
            single[str(network)] = f"goto to_{names[0]}"
        else:
            shared.setdefault(names, []).append(str(network))
    rules = []
    if single:
        elements = ", ".join(f"{network} : {verdict}" for network, verdict in single.items())
        rules.append(NftRule(f"ip6 saddr vmap {{ {elements} }}", "native: leaves by the uplink of its prefix"))
    for names, networks in shared.items():
        owners = tuple(member for member in members if member[0] in names)
        text = f"ip6 saddr {{ {', '.join(networks)} }} {_in_turn(owners)}"
        rules.append(NftRule(text, "native: leaves by one of the uplinks of its prefix"))
    if (others := _others(members, serving)) is not None:
        verdict = _in_turn(others) if others else "reject with icmpv6 type policy-fail"
        why = "foreign: by uplinks that translate" if others else "foreign, and no uplink translates"
        rules.append(NftRule(f"meta nfproto ipv6 {verdict}", why))
    return tuple(rules)


def _in_turn(members: Members) -> str:
    if len(members) == 1:
        return f"goto to_{members[0][0]}"
    turns = slots(tuple(weight for _, weight in members))
    elements = ", ".join(f"{turn} : goto to_{members[member][0]}" for turn, member in enumerate(turns))
    return f"numgen inc mod {len(turns)} vmap {{ {elements} }}"


def untouched(inputs: RulesetInput) -> dict[str, tuple[NftRule, ...]]:
    """Return by uplink what lets pass packets of this box that are rightly not translated when they leave by it."""
    found: dict[str, list[NftRule]] = {name: [] for name in inputs.config.uplinks}
    for side in sides(inputs.config, inputs.observed):
        if side.mode in ("native", "prefix") and side.prefixes:
            networks = ", ".join(map(str, collapse_addresses(side.prefixes)))
            found[side.name].append(NftRule(f"ip6 saddr {{ {networks} }} accept", "the uplink's own: untouched"))
    for name, uplink in inputs.config.uplinks.items():
        if not isinstance(uplink.nat, str):
            address = uplink.nat.snat
            word, other = ("ip", "ipv6") if isinstance(address, IPv4Address) else ("ip6", "ipv4")
            found[name].append(NftRule(f"meta nfproto {other} accept", "not translated here"))
            found[name].append(NftRule(f"{word} saddr {address} accept", "has the fixed address already"))
    return {name: tuple(rules) for name, rules in found.items()}


def _nat(inputs: RulesetInput) -> Iterator[NftRule]:
    yield from bridged_out(inputs.observed)
    yield from not_translated(inputs)
    known = sides(inputs.config, inputs.observed)
    matches = tuple((side.name, by_mark(side.device, inputs.numbers[side.name].mark, inputs.layout)) for side in known)
    yield from _nat6(known, inside_of(inputs.config, inputs.observed) if known else (), matches)
    yield from lent_addresses(inputs)
    # By the mark before by the device: another uplink may have it, too, and masquerade.
    for name in inputs.config.sharing:
        yield from _fixed(inputs, name)
    yield NftRule("oifname @masqueraded masquerade", "the link's own address")
    for name in inputs.config.uplinks:
        if name not in inputs.config.sharing:
            yield from _fixed(inputs, name)


def _fixed(inputs: RulesetInput, name: str) -> Iterator[NftRule]:
    """What an uplink does whose `nat` is not to masquerade."""
    uplink = inputs.config.uplinks[name]
    whose, alone = f'oifname "{uplink.interface}"', name not in inputs.config.sharing
    if not alone:
        whose = by_mark(uplink.interface, inputs.numbers[name].mark, inputs.layout)
    if not isinstance(uplink.nat, str):
        address = uplink.nat.snat
        word, family = ("ip", "ipv4") if isinstance(address, IPv4Address) else ("ip6", "ipv6")
        yield NftRule(f"{whose} meta nfproto {family} snat {word} to {address}", f"fixed address of {name}")
    if not alone and uplink.nat != "masquerade":
        yield NftRule(f"{whose} accept", f"{name} translates nothing else")
        for version in FAMILIES:
            # Such as a packet that a specific route sends there, or one that is dealt out.
            if (via := gateway_of(uplink, version)) is not None and sole_router(inputs.config, name, version):
                text = f'oifname . rt {version.header} nexthop {{ "{uplink.interface}" . {via} }} accept'
                yield NftRule(text, f"{name} translates nothing else")


@lru_cache(maxsize=4)
def _nat6(
    known: tuple[Side, ...], inside: tuple[IPv6Network, ...], matches: tuple[tuple[str, str], ...]
) -> tuple[NftRule, ...]:
    """What goes before the translation of both families; two rules however many uplinks with a device of their own.

    Args:
        known: what the uplinks do to sources.
        inside: prefixes of links that are no uplinks.
        matches: what tells each of them where it shares its device.
    """
    # DHCPv6 servers and routers answer no other source (RFC 8415); it means something on its link only.
    rules = [NftRule("ip6 saddr { fe80::/10, ff00::/8 } accept", "link-local: never translated")]
    exchanged = exchanges(known, inside)
    alone = tuple(side for side in known if side.alone)
    if own := [f'{network} . "{side.device}"' for side in alone for network in _untouched(side)]:
        rules.append(NftRule(f"ip6 saddr . oifname {{ {', '.join(own)} }} accept", _OWN))
    images = [
        f'{network} . "{side.device}" : {image}'
        for side in alone
        for network, image in exchanged.get(side.name, {}).items()
    ]
    if images:
        text = f"snat ip6 prefix to ip6 saddr . oifname map {{ {', '.join(images)} }}"
        rules.append(NftRule(text, _EXCHANGED))
    if strict := [f'"{side.device}"' for side in alone if side.mode == "native"]:
        text = f"meta nfproto ipv6 oifname {{ {', '.join(strict)} }} counter drop"
        rules.append(NftRule(text, _FOREIGN))
    for side in known:
        if not side.alone:
            rules += _nat6_by_mark(side, exchanged.get(side.name, {}), dict(matches)[side.name])
    return tuple(rules)


_OWN: Final = "the uplink's own: untouched"
_EXCHANGED: Final = "prefix exchanged, the host's part kept"
_FOREIGN: Final = "foreign, and this uplink translates nothing"


def _untouched(side: Side) -> list[IPv6Network]:
    """Return the sources that leave by the uplink as they are."""
    if side.mode not in ("native", "prefix"):
        return []
    return list(collapse_addresses((*side.prefixes, *map(IPv6Network, side.own))))


def _nat6_by_mark(side: Side, images: Mapping[IPv6Network, str], match: str) -> Iterator[NftRule]:
    """The same for an uplink that shares its device."""
    if own := _untouched(side):
        yield NftRule(f"{match} ip6 saddr {{ {', '.join(map(str, own))} }} accept", _OWN)
    if images:
        elements = ", ".join(f"{network} : {image}" for network, image in images.items())
        yield NftRule(f"{match} snat ip6 prefix to ip6 saddr map {{ {elements} }}", _EXCHANGED)
    if side.mode == "native":
        yield NftRule(f"{match} meta nfproto ipv6 counter drop", _FOREIGN)
