"""A third table, with a flowtable: established connections pass this box without meeting any rule.

The kernel looks up packets of such a connection where they come in, translates them and sends them on. No rule of
anybody sees them, and no policy rule. So what may be there is decided narrowly, and by a packet that the slow path has
just judged: it leaves, or came in, by the uplink that its connection is marked for, as the guards ask it. Another
program may judge one direction only, or behind our chain. So the table remembers whose packets have left, in each
direction, since it was written: both have to.

The kernel asks for no route again as long as the one it knows is good. IPv4 knows at once when any route or rule has
changed; IPv6 learns of changes in the same table only. So the table is written anew whenever routing changes
(`core/state/rerouting.py`): that empties it, and the next packet of every connection takes the slow path once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2s
from typing import Final, NamedTuple

from polywan.config import SteeringRule
from polywan.core.net import FAMILIES, Family, MarkLayout, family_of
from polywan.core.resolved import Resolved
from polywan.core.ruleset.conditions import Condition, conditions, match_lines
from polywan.core.ruleset.model import QUOTABLE, Chain, Hook, NftFlowtable, NftRule, NftSet, NftTable
from polywan.core.ruleset.neighbours.ipsec import from_outside
from polywan.core.world.lookups import NOTHING
from polywan.core.world.observed import Link, Observed
from polywan.core.world.paths import Path, UplinkFamily
from polywan.core.world.world import World

FAST_TABLE: Final = "inet polywan_fast"
"""Family and name of the table (nft(8))."""

LACKING: Final = "the kernel has no flowtable (CONFIG_NF_FLOW_TABLE, CONFIG_NFT_FLOW_OFFLOAD)"

MOST_DEVICES: Final = 255
"""Devices of a flowtable; the kernel takes 256 at most (NFT_NETDEVICE_MAX)."""

AFTER_FILTERS: Final = 300
"""Priority in forward: behind the filters of others (0, firewalld's 10), whoever was loaded first."""

_LAST: Final = 0x7FFF_FFFF
"""Priority behind all others: in ingress they go on seeing every packet; in postrouting they have let it pass."""

_PASSED: Final = NftSet("typeof ct id; size 131072; flags dynamic,timeout; timeout 10s;")
"""Connections of which a packet has left. So many may be on their way to the fast path at once; an answer that takes
longer than the timeout has no need of it."""

_STATIC: Final = frozenset({"from", "to", "protocol", "port", "source_port", "in_interface", "family"})
"""Conditions of which a packet says the same throughout its connection."""

_SLOW: Final = (
    NftRule("ct state != established accept", "a first packet"),
    # The side that asked knows the way: the route of its packets is that of the connection.
    NftRule("ct direction reply accept", "the other direction decides"),
)

_UNSEEN: Final = ("user", "group", "cgroup")
"""Conditions that hold for no forwarded packet."""


def obstacle(config: Resolved, observed: Observed) -> str:
    """Return why nothing may take the fast path here; empty when something may, or when nobody wants it."""
    if config.global_.fastpath is False:
        return ""
    if not observed.flowtable:
        return LACKING
    if observed.watching:
        return observed.watching
    return _judged(config).everything


def fast_path(config: Resolved, world: World, serving: Collection[UplinkFamily]) -> NftTable | None:
    """Return the table; None where there is nothing for it.

    Args:
        config: the file, with the numbers of uplinks.
        world: what is there.
        serving: the uplinks whose connections may take it, by family.
    """
    observed = world.observed
    if config.global_.fastpath is False or obstacle(config, observed):
        return None
    places = {
        family: tuple((path.link, int(config.numbers[name].mark)) for name, path in _paths(world, serving, family))
        for family in FAMILIES
        if not _unheard(observed, family)
    }
    outside = {uplink.interface for uplink in config.uplinks.values()}
    links = _links(observed, {device for place in places.values() for device, _ in place}, outside)
    names = {link.name: link.index for link in links}
    known = {
        family: found
        for family, place in places.items()
        if (found := tuple((device, mark) for device, mark in place if device in names))
    }
    if not known:
        return None
    layout, devices = config.layout, tuple(names.items())
    shared = frozenset(config.uplinks[name].interface for name in config.sharing)
    added = [r for f, found in known.items() for r in _added(layout, f, found, devices, shared, xfrm=observed.xfrm)]
    passed = [rule for f, found in known.items() for rule in _passed(layout, f, found)]
    return NftTable(
        chains={
            "forward": Chain((*_SLOW, *_judged(config).rules, *added), Hook("filter", "forward", AFTER_FILTERS)),
            "postrouting": Chain((_SLOW[0], *passed), Hook("filter", "postrouting", _LAST)),
        },
        sets={"asked": _PASSED, "answered": _PASSED},
        flowtables={"fast": NftFlowtable(tuple(names), _LAST)},
    )


def _unheard(observed: Observed, family: Family) -> bool:
    """True where routes may change of which nobody hears: those of tables that are too long to be read.

    IPv4 needs nobody to tell it.
    """
    if family is Family.V4:
        return False
    return any(
        known.kind == "large" and family_of(known.prefix) is family for t in observed.tables.values() for known in t
    )


def _paths(world: World, serving: Collection[UplinkFamily], family: Family) -> Iterator[tuple[str, Path]]:
    for (name, other), path in world.reach.items():
        if other is family and (name, other) in serving and isinstance(path, Path):
            yield name, path


def _links(observed: Observed, serving: Collection[str], outside: Collection[str]) -> list[Link]:
    """The devices between which the fast path leads: those of uplinks that serve, and those inside with an address.

    A device that carries another one (a trunk, or a link with a PPPoE session) is not among them, whatever that other
    one is for: the kernel would take the inner packets off it, and the inner device, the bridge that it may be a port
    of, its counters and its shaping would not see them.
    """
    addressed = {address.link for address in observed.addresses}
    usable = [
        link
        for link in observed.links.values()
        if link.up and not link.master and link.name != "lo" and QUOTABLE.fullmatch(link.name)
        if link.name in serving or (link.name in addressed and link.name not in outside)
    ]
    carriers = {link.parent for link in observed.links.values() if link.up}
    usable = [link for link in usable if link.index not in carriers and link.name not in observed.sessions]
    return sorted(usable, key=lambda link: (link.name not in serving, link.index))[:MOST_DEVICES]


class _Judged(NamedTuple):
    """What a kill switch has to judge packet by packet: rules that pass it over, or why that may be anything."""

    rules: tuple[NftRule, ...]
    everything: str


@lru_cache(maxsize=2)
def _judged(config: Resolved) -> _Judged:
    found = []
    for number, rule in enumerate(config.rules, start=1):
        for known in _either_way(rule) if _judges(rule) else ():
            for text in match_lines(known):
                if not text:
                    return _Judged((), f"rule {number} has `only`, and may concern any packet")
                found.append(NftRule(f"{text} accept", f"rule {number} has `only`: each packet is judged"))
    return _Judged(tuple(dict.fromkeys(found)), "")


def _judges(rule: SteeringRule) -> bool:
    """True for a rule whose kill switch may drop a forwarded packet."""
    return bool(rule.only) and not any(getattr(rule, key) for key in _UNSEEN)


def _either_way(rule: SteeringRule) -> Iterator[tuple[Condition, ...]]:
    """Yield what a packet of a connection meets that the rule may take, and what one of the answers to such a packet.

    Conditions that may change during a connection (lists, names, times) are left out: then more is passed over.
    """
    back = rule.model_copy(
        update={"from_": rule.to, "to": rule.from_, "source_port": rule.port, "port": rule.source_port}
    )
    for match in (rule, back):
        found = (c for c in conditions(match, rule.protocol, NOTHING) if c.key in _STATIC)
        yield tuple(_outgoing(c) if match is back and c.key == "in_interface" else c for c in found)


def _outgoing(condition: Condition) -> Condition:
    """The same device where answers leave."""
    texts = {
        family: tuple(text.replace("iifname", "oifname") for text in alternatives)
        for family, alternatives in condition.alternatives.items()
    }
    return replace(condition, alternatives=texts)


@lru_cache(maxsize=16)
def _added(
    layout: MarkLayout,
    family: Family,
    known: tuple[tuple[str, int], ...],
    devices: tuple[tuple[str, int], ...],
    shared: frozenset[str],
    *,
    xfrm: bool,
) -> tuple[NftRule, ...]:
    """What puts a connection into the flowtable: one that leaves by its uplink, and one that came by it.

    Args:
        layout: our bits of the marks.
        family: of the connections.
        known: devices of uplinks, each with its mark.
        devices: all devices of the flowtable with their index. A flowtable does not follow one that is made anew under
            the same name; with its index the rules differ, so that the table is written again.
        shared: devices that several uplinks have: the kernel asks for the way back without the mark that tells which
            of them, so that what came by one of these stays on the slow path.
        xfrm: the kernel can do IPsec.
    """
    clear = f"{from_outside(xfrm=xfrm)}rt ipsec missing " if xfrm else ""
    names = ", ".join(f'"{name}"' for name, _ in devices)
    version = blake2s(repr(devices).encode(), digest_size=2).hexdigest()
    return tuple(
        NftRule(
            f"{_PROTOCOLS[family]} {clear}{_by(layout, own, one)} {other} {{ {names} }} "
            "ct id @asked ct id @answered "
            # The kernel asks for the way back with this packet's mark; answers come without one.
            f"meta mark set meta mark & {layout.keep:#010x} flow add @fast",
            f"{why} (devices {version})",
        )
        for one, other, own, why in (
            ("oifname", "iifname", known, "leaves by its uplink"),
            ("iifname", "oifname", tuple(k for k in known if k[0] not in shared), "came by its uplink"),
        )
        if own
    )


@lru_cache(maxsize=16)
def _passed(layout: MarkLayout, family: Family, known: tuple[tuple[str, int], ...]) -> tuple[NftRule, ...]:
    """What remembers a connection of these uplinks when one of its packets leaves."""
    return tuple(
        NftRule(
            f"{_PROTOCOLS[family]} ct direction {direction} {_by(layout, known, side)} update @{where} {{ ct id }}",
            "nobody has kept it",
        )
        for side in ("oifname", "iifname")
        for direction, where in (("original", "asked"), ("reply", "answered"))
    )


_PROTOCOLS: Final = {f: f"meta nfproto {f.nfproto} meta l4proto {{ tcp, udp }}" for f in FAMILIES}


def _by(layout: MarkLayout, known: tuple[tuple[str, int], ...], side: str) -> str:
    """Match packets that pass the device of the uplink of their connection's mark."""
    pairs = ", ".join(f'"{device}" . {mark:#010x}' for device, mark in sorted(known))
    return f"{side} . ct mark & {layout.mask:#010x} {{ {pairs} }}"
