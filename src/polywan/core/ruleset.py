"""Build polywan's nftables table: which chains exist, what each does, and why each rule is there.

The path of a packet (docs/design/packet-path.md has the picture)::

    prerouting ── marked, its uplink dead ──▶ cut (reset, or unreachable; rules that exist only meanwhile)
        ├── marked ──▶ mark back on the packet (all later packets: one rule)
        └── new ──▶ fresh ── by an uplink ──▶ to_X (replies go back the way they came)
                      └── routed to an uplink ──▶ steer ──▶ policy_P ──▶ slots ──▶ to_X (choose once)
    output       the same, for the box's own packets (chain local)
    nudge        in output too, before connection tracking: what makes idle ends of dead connections speak
    postrouting  MSS clamp; guard_X: a connection of one uplink never leaves by another
    nat          source address per uplink

Nothing on this path grows with the number of uplinks: every lookup is one map. Both families share every
chain; where a choice depends on the family there is one map per family.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from polywan.core.given import ROOM, RulesetInput, unmarked
from polywan.core.net import FAMILIES, Family, MarkLayout
from polywan.core.nft import Chain, Hook, Key, NftMap, NftRule, NftSet, NftTable
from polywan.core.policies import policy_chains, policy_maps
from polywan.core.reach import UplinkFamily
from polywan.core.select import policies_of
from polywan.core.steering import steering_chains, steering_sets
from polywan.core.translation import translation_chains, translation_sets
from polywan.core.untracked import untracked_chains
from polywan.core.via import via_chains, via_entry, via_maps

RAW: Final = -300
MANGLE: Final = -150


def build(given: RulesetInput) -> NftTable:
    """Return the whole table for a selection."""
    return NftTable(chains=_chains(given), sets=_sets(given), maps=_maps(given))


def _sets(given: RulesetInput) -> dict[str, NftSet]:
    devices: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values())
    clamped: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values() if u.clamp_mss)
    sets = {
        "uplinks": NftSet(f"type ifname; {ROOM}", devices),
        # Loopback carries the resets that this box sends to its own sockets.
        "outer": NftSet(f"type ifname; {ROOM}", devices | {"lo"}),
        "uplink_routes": NftSet(f"typeof fib daddr oifname; {ROOM}", devices),
        "own": NftSet("type ipv4_addr; size 4096;", frozenset(map(str, given.own))),
        "clamped": NftSet(f"type ifname; {ROOM}", clamped),
    }
    sets |= {**steering_sets(given), **translation_sets(given)}
    sets |= {f"dead_{family}": NftSet(f"type mark; {ROOM}", _dead_marks(given, family)) for family in FAMILIES}
    sets |= {
        f"down_{family}": NftSet(f"type mark; {ROOM}", _marks(given, given.selection.down, family))
        for family in FAMILIES
    }
    return sets


def _dead_marks(given: RulesetInput, family: Family) -> frozenset[Key]:
    """Marks whose connections are cut; with any, the one that is never given out: see `kernel/vanished.py`."""
    marks = _marks(given, given.selection.dead, family) | given.retired
    return marks | {given.layout.mask} if marks else marks


def _marks(given: RulesetInput, keys: Iterable[UplinkFamily], family: Family) -> frozenset[Key]:
    return frozenset(int(given.numbers[name].mark) for name, f in keys if f is family)


def _maps(given: RulesetInput) -> dict[str, NftMap]:
    by_device = {u.interface: name for name, u in given.config.uplinks.items()}
    marks = {name: int(given.numbers[name].mark) for name in by_device.values()}
    restore: dict[Key, str] = {m: f"goto to_{name}" for name, m in marks.items()}
    restore |= {int(numbers.mark): f"goto by_{policy}" for policy, numbers in given.policy_marks.items()}
    maps = {
        "restore": NftMap(f"type mark : verdict; {ROOM}", restore),
        "arrival": NftMap(f"type ifname : verdict; {ROOM}", {d: f"goto to_{n}" for d, n in by_device.items()}),
        "guards": NftMap(f"type ifname : verdict; {ROOM}", {d: f"goto guard_{n}" for d, n in by_device.items()}),
    }
    for family in FAMILIES:
        main = given.main_links.get(family, frozenset())
        bound: dict[Key, str] = {d: f"goto to_{n}" for d, n in by_device.items() if d not in main}
        maps[f"bound_{family}"] = NftMap(f"type ifname : verdict; {ROOM}", bound)
    return {**maps, **policy_maps(given), **via_maps(given)}


def _chains(given: RulesetInput) -> dict[str, Chain]:
    dead = tuple(family for family in FAMILIES if _dead_marks(given, family))
    spread = _sprayed(given)
    chains = {**_hooked(given.layout.mask, dead, sprayed=bool(spread)), **_shared(given.layout)}
    chains |= {**steering_chains(given), **translation_chains(given), **policy_chains(given)}
    chains |= untracked_chains(given.layout.mask)
    chains |= {**via_chains(given), "local": Chain((*via_entry(given), *chains["local"].rules))}
    for name in given.config.uplinks:
        mark, translates = given.numbers[name].mark, given.config.uplinks[name].nat != "none"
        chains.update(_uplink(name, mark, given.layout, spread.get(name, ()), translates=translates))
    return chains


def _sprayed(given: RulesetInput) -> dict[str, tuple[int, ...]]:
    """Marks of the per-packet policies that an uplink serves, by uplink."""
    found: dict[str, tuple[int, ...]] = {}
    for name, policy in policies_of(given.config).items():
        if policy.algorithm == "per-packet" and name in given.policy_marks:
            for member in (m for tier in policy.tiers for m in tier):
                found[member.uplink] = (*found.get(member.uplink, ()), int(given.policy_marks[name].mark))
    return found


@cache
def _hooked(mask: int, dead: tuple[Family, ...], *, sprayed: bool) -> dict[str, Chain]:
    """The chains that every packet meets.

    Args:
        mask: our bits of the marks.
        dead: families in which some uplink is dead.
        sprayed: some policy deals out single packets.
    """
    ours = f"ct mark & {mask:#010x}"
    # Every later packet meets these first, so they are there only while something is dead.
    cut = tuple(NftRule(f"meta nfproto {f.nfproto} {ours} @dead_{f} goto cut", "its uplink is dead") for f in dead)
    spray = (NftRule(f"ct direction original {ours} vmap @spray", "dealt out one by one"),) if sprayed else ()
    prerouting = (
        *cut,
        *spray,
        # Nearly every later packet ends at one of these two. On the way inside the mark stays off the packet: a
        # network behind another program's table is found without it.
        NftRule(
            f"meta mark 0 ct direction original {ours} != 0 meta mark set {ours} accept",
            "already chosen: the mark back on the packet",
        ),
        NftRule("ct direction reply iifname @outer accept", "an answer from outside: routed by its destination"),
        NftRule(f"{ours} vmap @restore", "the same, beside the bits of others"),
        NftRule("ct state new meta pkttype host goto fresh", "first packet of a connection"),
        NftRule("ip saddr @own goto forged", "claims to come from this box"),
    )
    output = (
        NftRule("oifname != @uplinks accept", "does not leave by an uplink"),
        NftRule(f"meta mark & {mask:#010x} != 0 accept", "a socket that chose for itself, as probes do"),
        *cut,
        NftRule(f"{ours} vmap @restore", "already chosen"),
        NftRule("ct state new goto local", "first packet of a connection of this box"),
    )
    postrouting = (
        NftRule("tcp flags & (syn | rst) == syn jump clamp", "only SYNs carry a segment size"),
        NftRule("oifname vmap @guards", "leaves by an uplink: is it the right one?"),
    )
    return {
        **({"nudge": _nudge(mask)} if dead else {}),
        "prerouting": Chain(prerouting, Hook("filter", "prerouting", MANGLE)),
        "output": Chain(output, Hook("route", "output", MANGLE)),
        "postrouting": Chain(postrouting, Hook("filter", "postrouting", MANGLE)),
    }


def _nudge(mask: int) -> Chain:
    """What `kernel/nudge.py` sends in the name of servers, with the mark that is never given out."""
    rules = (
        NftRule(f"meta mark {mask:#010x} oifname @uplinks drop", "speaks in the name of somebody outside"),
        NftRule(f"meta mark {mask:#010x} notrack", "its connection has other numbers"),
    )
    return Chain(rules, Hook("filter", "output", RAW))


@cache
def _shared(layout: MarkLayout) -> dict[str, Chain]:
    ask = f"meta mark set meta mark | {layout.mask:#010x}"
    fresh = (
        NftRule("ip saddr @own goto forged", "claims to come from this box"),
        NftRule("iifname vmap @arrival", "from outside: replies go back the way it came"),
        # With the mark that is never given out the lookup skips our own policy rules: what would happen without us?
        NftRule(f"{ask} fib daddr . mark oifname @uplink_routes goto steer", "without us it would leave by an uplink"),
        NftRule(f"fib daddr type local {unmarked(layout)}", "for this box"),
        NftRule("fib daddr . mark oif missing goto steer", "without us there is no way: an uplink may know one"),
        NftRule(unmarked(layout), "goes where the routing tables say"),
    )
    forged = (
        NftRule('iifname "lo" accept', "it does"),
        NftRule("drop", "accept_local leaves this check to us"),
    )
    local = (
        # How a DHCPv6 client gets an uplink its addresses: refused with everything else, IPv6 would never come.
        NftRule("ip6 daddr { fe80::/10, ff00::/8 } accept", "stays on its link: nothing to choose"),
        *(
            NftRule(f"meta nfproto {f.nfproto} oifname vmap @bound_{f}", "bound to an uplink by device or address")
            for f in FAMILIES
        ),
        NftRule("goto steer", "the box follows the same policies"),
    )
    cut = (
        NftRule("iifname @outer accept", "towards the inside or this box: may still arrive"),
        NftRule("meta l4proto tcp ct state new drop", "unanswered: forgotten soon, then the retry chooses again"),
        NftRule("meta l4proto tcp reject with tcp reset", "fails over at once instead of hanging"),
        NftRule("reject with icmpx type host-unreachable", "fails over at once instead of hanging"),
    )
    clamp = (
        NftRule("oifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
        NftRule("iifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
    )
    return {
        "fresh": Chain(fresh),
        "forged": Chain(forged),
        "local": Chain(local),
        "cut": Chain(cut),
        "clamp": Chain(clamp),
    }


@cache
def _uplink(
    name: str, mark: int, layout: MarkLayout, sprayed: tuple[int, ...], *, translates: bool
) -> tuple[tuple[str, Chain], ...]:
    """The two chains of an uplink; verdict maps lead here, since nft 1.0.6 cannot compute a masked mark from a map.

    `to_X` serves every way to a mark, the first choice and its return to a later packet alike: writing the
    connection's mark again changes nothing, and on a packet from outside the mark meets specific routes only.
    `sprayed` are the marks of policies whose packets the uplink carries one by one.
    """
    on_connection = f"ct mark set ct mark & {layout.keep:#010x} | {mark:#010x}"
    on_packet = f"meta mark set meta mark & {layout.keep:#010x} | {mark:#010x}"
    ours = f"ct mark & {layout.mask:#010x}"
    # What is not tracked (neighbour discovery) has no connection mark at all: it matches none of these.
    # A first packet that leaves elsewhere than chosen follows a specific route (a modem in the uplink's own
    # network) or a socket bound to the device; nothing is translated yet, so the choice is put right.
    guard = (
        NftRule(f"ct mark {mark:#010x} accept", f"on {name}"),
        NftRule(f"{ours} == {mark:#010x} accept", f"on {name}, beside the bits of others"),
        *(NftRule(f"{ours} == {m:#010x} accept", "dealt out one by one") for m in sprayed),
        NftRule(f"ct status ! confirmed {ours} != 0 goto to_{name}", "routed here by something more specific"),
        NftRule(f"{ours} != 0 counter drop", "belongs to another uplink"),
        # Connection tracking does not translate what it calls invalid: it would leave with an inside source.
        *((NftRule("iif != 0 ct state invalid counter drop", "would leave untranslated"),) if translates else ()),
    )
    return (
        (f"to_{name}", Chain((NftRule(f"{on_connection} {on_packet} accept", f"on {name}"),))),
        (f"guard_{name}", Chain(guard)),
    )
