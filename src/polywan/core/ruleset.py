"""Build polywan's nftables table: which chains exist, what each does, and why each rule is there.

The path of a packet (docs/design/packet-path.md has the picture)::

    prerouting ── marked, its uplink dead ──▶ cut (reset, or unreachable; rules that exist only meanwhile)
        ├── marked ──▶ mark back on the packet (all later packets: one rule)
        └── new ──▶ fresh ── by an uplink ──▶ to_X (replies go back the way they came)
                      └── routed to an uplink ──▶ steer ──▶ policy_P ──▶ slots ──▶ to_X (choose once)
    output       the same, for the box's own packets (chain local)
    postrouting  MSS clamp; guard_X: a connection of one uplink never leaves by another
    nat          source address per uplink

Nothing on this path grows with the number of uplinks: every lookup is one map. Both families share every
chain; where a choice depends on the family there is one map per family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import IPv4Address
from typing import Final

from polywan.config import Config
from polywan.core.allocate import Numbers
from polywan.core.balance import MAX_SLOTS, slots
from polywan.core.match import match_texts
from polywan.core.net import FAMILIES, Family, MarkLayout
from polywan.core.nft import Chain, Hook, Key, NftMap, NftRule, NftSet, NftTable
from polywan.core.select import DIRECT, Choice, Selection

MANGLE: Final = -150
SRCNAT: Final = 100

ROOM: Final = "size 512;"
"""Declared size of sets and maps: with it the kernel takes its faster kind of hash (nft(8), set types)."""

REFUSAL: Final = {
    "unreachable": "reject with icmpx type no-route",
    "prohibit": "reject with icmpx type admin-prohibited",
    "blackhole": "drop",
}
"""How a connection that no uplink can serve is refused: the words of ip-route(8) and their nft equivalents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetInput:
    """What the table depends on.

    Attributes:
        retired: marks of uplinks that are no longer configured; connections that still carry them are cut.
        own: IPv4 addresses of this box, as far as others can reach them.
        main_links: links by which main's own default leaves, per family; where a socket that was bound to
            its uplink cannot be told from one that was not.
    """

    config: Config
    layout: MarkLayout
    numbers: Mapping[str, Numbers]
    selection: Selection
    retired: frozenset[int] = frozenset()
    own: frozenset[IPv4Address] = frozenset()
    main_links: Mapping[Family, frozenset[str]]


def build(given: RulesetInput) -> NftTable:
    """Return the whole table for a selection."""
    return NftTable(chains=_chains(given), sets=_sets(given), maps=_maps(given))


def _sets(given: RulesetInput) -> dict[str, NftSet]:
    devices: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values())
    clamped: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values() if u.clamp_mss)
    masked: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values() if u.nat == "masquerade")
    sets = {
        "uplinks": NftSet(f"type ifname; {ROOM}", devices),
        # Loopback carries the resets that this box sends to its own sockets.
        "outer": NftSet(f"type ifname; {ROOM}", devices | {"lo"}),
        "uplink_routes": NftSet(f"typeof fib daddr oifname; {ROOM}", devices),
        "own": NftSet("type ipv4_addr; size 4096;", frozenset(map(str, given.own))),
        "clamped": NftSet(f"type ifname; {ROOM}", clamped),
        "masqueraded": NftSet(f"type ifname; {ROOM}", masked),
    }
    sets |= {f"dead_{family}": NftSet(f"type mark; {ROOM}", _dead_marks(given, family)) for family in FAMILIES}
    return sets


def _dead_marks(given: RulesetInput, family: Family) -> frozenset[Key]:
    return frozenset(int(given.numbers[name].mark) for name, f in given.selection.dead if f is family) | given.retired


def _maps(given: RulesetInput) -> dict[str, NftMap]:
    by_device = {u.interface: name for name, u in given.config.uplinks.items()}
    marks = {name: int(given.numbers[name].mark) for name in by_device.values()}
    maps = {
        "restore": NftMap(f"type mark : verdict; {ROOM}", {m: f"goto to_{name}" for name, m in marks.items()}),
        "arrival": NftMap(f"type ifname : verdict; {ROOM}", {d: f"goto to_{n}" for d, n in by_device.items()}),
        "guards": NftMap(f"type ifname : verdict; {ROOM}", {d: f"goto guard_{n}" for d, n in by_device.items()}),
    }
    for family in FAMILIES:
        main = given.main_links.get(family, frozenset())
        bound: dict[Key, str] = {d: f"goto to_{n}" for d, n in by_device.items() if d not in main}
        maps[f"bound_{family}"] = NftMap(f"type ifname : verdict; {ROOM}", bound)
    for (policy, family), choice in given.selection.choices.items():
        verdicts = [f"goto to_{name}" for name, _ in choice.members]
        maps[slot_map(policy, family)] = NftMap(
            f"typeof numgen inc mod {MAX_SLOTS} : verdict; size {MAX_SLOTS};",
            {i: verdicts[m] for i, m in enumerate(_slots(choice))},
        )
    return maps


def unmarked(layout: MarkLayout) -> str:
    """Verdict that lets a packet pass without a choice; takes off the mark that `fresh` asked its question with."""
    return f"meta mark set meta mark & {layout.keep:#010x} accept"


def slot_map(policy: str, family: Family) -> str:
    """Name of the map that holds a policy's slots in one family."""
    return f"slots_{family}_{policy}"


@lru_cache(maxsize=64)
def _turns(weights: tuple[int, ...]) -> tuple[int, ...]:
    return slots(weights)


def _slots(choice: Choice) -> tuple[int, ...]:
    return _turns(tuple(weight for _, weight in choice.members)) if choice.members else ()


def _chains(given: RulesetInput) -> dict[str, Chain]:
    dead = tuple(family for family in FAMILIES if _dead_marks(given, family))
    chains = {**_hooked(given.layout.mask, dead), **_shared(given.layout)}
    chains["steer"] = Chain(tuple(_steer(given)))
    chains["nat"] = Chain(tuple(_nat(given)), Hook("nat", "postrouting", SRCNAT))
    for policy in dict.fromkeys(policy for policy, _ in given.selection.choices):
        chains[f"policy_{policy}"] = Chain(tuple(_policy(given, policy)))
    for name in given.config.uplinks:
        chains.update(_uplink(name, given.numbers[name].mark, given.layout))
    return chains


@cache
def _hooked(mask: int, dead: tuple[Family, ...]) -> dict[str, Chain]:
    """The chains that every packet meets; `dead` names the families in which some uplink is dead."""
    ours = f"ct mark & {mask:#010x}"
    # Every later packet meets these first, so they are there only while something is dead.
    cut = tuple(NftRule(f"meta nfproto {f.nfproto} {ours} @dead_{f} goto cut", "its uplink is dead") for f in dead)
    prerouting = (
        *cut,
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
        "prerouting": Chain(prerouting, Hook("filter", "prerouting", MANGLE)),
        "output": Chain(output, Hook("route", "output", MANGLE)),
        "postrouting": Chain(postrouting, Hook("filter", "postrouting", MANGLE)),
    }


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
def _uplink(name: str, mark: int, layout: MarkLayout) -> tuple[tuple[str, Chain], ...]:
    """The two chains of an uplink; verdict maps lead here, since nft 1.0.6 cannot compute a masked mark from a map.

    `to_X` serves every way to a mark, the first choice and its return to a later packet alike: writing the
    connection's mark again changes nothing, and on a packet from outside the mark meets specific routes only.
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
        NftRule(f"ct status ! confirmed {ours} != 0 goto to_{name}", "routed here by something more specific"),
        NftRule(f"{ours} != 0 counter drop", "belongs to another uplink"),
    )
    return (
        (f"to_{name}", Chain((NftRule(f"{on_connection} {on_packet} accept", f"on {name}"),))),
        (f"guard_{name}", Chain(guard)),
    )


def _steer(given: RulesetInput) -> Iterator[NftRule]:
    active = {family for _, family in given.selection.choices}
    for family in FAMILIES:
        if family not in active:
            yield NftRule(f"meta nfproto {family.nfproto} {unmarked(given.layout)}", f"no uplink has {family.nfproto}")
    for number, rule in enumerate(given.config.rules, start=1):
        if rule.action is not None:
            verdict = unmarked(given.layout) if rule.action == "bypass" else REFUSAL["prohibit"]
        else:
            verdict = f"goto policy_{rule.policy or DIRECT + str(rule.uplink)}"
        for text in match_texts(rule):
            yield NftRule(f"{text} {verdict}".strip(), f"rule {number}")
    if active:
        yield NftRule("goto policy_default", "no rule matched")


def _policy(given: RulesetInput, policy: str) -> Iterator[NftRule]:
    resort = REFUSAL.get(_last_resort(given.config, policy)) or unmarked(given.layout)
    for family in FAMILIES:
        choice = given.selection.choices.get((policy, family))
        if choice is None:
            continue
        selector = f"meta nfproto {family.nfproto}"
        if choice.members:
            count = len(_slots(choice))
            yield NftRule(f"{selector} numgen inc mod {count} vmap @{slot_map(policy, family)}", "weighted round robin")
            # Met only by a packet that was inside this chain while its slots were replaced.
            yield NftRule(f"{selector} goto to_{choice.members[0][0]}", "never without a choice")
        else:
            yield NftRule(f"{selector} {resort}", "last resort")


def _last_resort(config: Config, policy: str) -> str:
    policies = config.resolved_policies()
    return (policies.get(policy) or policies["default"]).last_resort


def _nat(given: RulesetInput) -> Iterator[NftRule]:
    yield NftRule("oifname @masqueraded masquerade", "the link's own address")
    for name, uplink in given.config.uplinks.items():
        if isinstance(uplink.nat, str):
            continue
        address = uplink.nat.snat
        word, family = ("ip", "ipv4") if isinstance(address, IPv4Address) else ("ip6", "ipv6")
        yield NftRule(
            f'oifname "{uplink.interface}" meta nfproto {family} snat {word} to {address}',
            f"fixed address of {name}",
        )
