"""Build polywan's nftables table: which chains exist, what each does, and why each rule is there.

The path of a packet (docs/design/packet-path.md has the picture)::

    prerouting ── marked connection ──▶ marked ── arrives by an uplink: nothing to do
        │                                  ├── its uplink is dead ──▶ cut (reset, or unreachable)
        │                                  └── mark back on the packet
        └── new ──▶ fresh ── by an uplink ──▶ to_X (replies go back the way it came)
                      └── routed to an uplink ──▶ steer ──▶ policy_P ──▶ slots ──▶ to_X (choose once)
    output       the same, for the box's own packets
    forward      MSS clamp
    postrouting  guard_X: a connection of one uplink never leaves by another
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
from polywan.core.balance import slots
from polywan.core.match import match_texts
from polywan.core.net import FAMILIES, Family, MarkLayout
from polywan.core.nft import Chain, Hook, Key, NftMap, NftRule, NftSet, NftTable
from polywan.core.select import DIRECT, Choice, Selection

MANGLE: Final = -150
SRCNAT: Final = 100

LAST_RESORT: Final = {
    "unreachable": "reject with icmpx type no-route",
    "prohibit": "reject with icmpx type admin-prohibited",
    "blackhole": "drop",
    "main": "accept",
}
"""What happens to a connection that no uplink can serve: the words of ip-route(8) and their nft equivalents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetInput:
    """What the table depends on.

    Attributes:
        retired: marks of uplinks that are no longer configured; connections that still carry them are cut.
        main_links: links by which main's own default leaves, per family; where a socket that was bound to
            its uplink cannot be told from one that was not.
    """

    config: Config
    layout: MarkLayout
    numbers: Mapping[str, Numbers]
    selection: Selection
    retired: frozenset[int] = frozenset()
    main_links: Mapping[Family, frozenset[str]]


def build(given: RulesetInput) -> NftTable:
    """Return the whole table for a selection."""
    return NftTable(chains=dict(_chains(given)), sets=_sets(given), maps=_maps(given))


def _sets(given: RulesetInput) -> dict[str, NftSet]:
    devices: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values())
    clamped: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values() if u.clamp_mss)
    masked: frozenset[Key] = frozenset(u.interface for u in given.config.uplinks.values() if u.nat == "masquerade")
    sets = {
        "uplinks": NftSet("type ifname", devices),
        # Loopback carries the resets that this box sends to its own sockets.
        "outer": NftSet("type ifname", devices | {"lo"}),
        "uplink_routes": NftSet("typeof fib daddr oifname", devices),
        "clamped": NftSet("type ifname", clamped),
        "masqueraded": NftSet("type ifname", masked),
    }
    for family in FAMILIES:
        dead = {int(given.numbers[name].mark) for name, f in given.selection.dead if f is family}
        sets[f"dead_{family}"] = NftSet("type mark", frozenset(dead | given.retired))
    return sets


def _maps(given: RulesetInput) -> dict[str, NftMap]:
    by_device = {u.interface: name for name, u in given.config.uplinks.items()}
    maps = {
        "arrival": NftMap("type ifname : verdict", {d: f"goto to_{n}" for d, n in by_device.items()}),
        "guards": NftMap("type ifname : verdict", {d: f"goto guard_{n}" for d, n in by_device.items()}),
        "restore": NftMap(
            "type mark : verdict", {int(given.numbers[n].mark): f"goto to_{n}" for n in by_device.values()}
        ),
    }
    for family in FAMILIES:
        bound: dict[Key, str] = {
            d: f"goto to_{n}" for d, n in by_device.items() if d not in given.main_links.get(family, frozenset())
        }
        maps[f"bound_{family}"] = NftMap("type ifname : verdict", bound)
    for (policy, family), choice in given.selection.choices.items():
        verdicts = [f"goto to_{name}" for name, _ in choice.members]
        maps[slot_map(policy, family)] = NftMap(
            "typeof numgen inc mod 1024 : verdict", {i: verdicts[m] for i, m in enumerate(_slots(choice))}
        )
    return maps


def slot_map(policy: str, family: Family) -> str:
    """Name of the map that holds a policy's slots in one family."""
    return f"slots_{family}_{policy}"


@lru_cache(maxsize=64)
def _turns(weights: tuple[int, ...]) -> tuple[int, ...]:
    return slots(weights)


def _slots(choice: Choice) -> tuple[int, ...]:
    return _turns(tuple(weight for _, weight in choice.members)) if choice.members else ()


def _chains(given: RulesetInput) -> Iterator[tuple[str, Chain]]:
    mask = given.layout.mask
    yield from _hooked(mask)
    yield from _shared(mask)
    yield "steer", Chain(tuple(_steer(given)))
    yield "nat", Chain(tuple(_nat(given)), Hook("nat", "postrouting", SRCNAT))
    policies = dict.fromkeys(policy for policy, _ in given.selection.choices)
    for policy in policies:
        yield f"policy_{policy}", Chain(tuple(_policy(given, policy)))
    for name in given.config.uplinks:
        yield from _uplink(name, given.numbers[name].mark, given.layout)


def _hooked(mask: int) -> Iterator[tuple[str, Chain]]:
    ours = f"ct mark & {mask:#010x}"
    yield (
        "prerouting",
        Chain(
            (
                NftRule(f"{ours} != 0 goto marked", "already chosen"),
                NftRule("ct state new meta pkttype host goto fresh", "first packet of a connection"),
            ),
            Hook("filter", "prerouting", MANGLE),
        ),
    )
    yield (
        "output",
        Chain(
            (
                NftRule("oifname != @uplinks accept", "does not leave by an uplink"),
                NftRule(f"meta mark & {mask:#010x} != 0 accept", "a socket that chose for itself, as probes do"),
                *_cut_dead(mask),
                NftRule(f"{ours} vmap @restore", "already chosen"),
                NftRule("ct state new goto own", "first packet of a connection of this box"),
            ),
            Hook("route", "output", MANGLE),
        ),
    )
    yield (
        "forward",
        Chain(
            (NftRule("tcp flags & (syn | rst) == syn goto clamp", "only SYNs carry a segment size"),),
            Hook("filter", "forward", MANGLE),
        ),
    )
    yield (
        "postrouting",
        Chain(
            (NftRule("oifname vmap @guards", "leaves by an uplink: is it the right one?"),),
            Hook("filter", "postrouting", MANGLE),
        ),
    )


def _cut_dead(mask: int) -> Iterator[NftRule]:
    for family in FAMILIES:
        yield NftRule(
            f"meta nfproto {family.nfproto} ct mark & {mask:#010x} @dead_{family} goto cut",
            "its uplink is dead",
        )


def _shared(mask: int) -> Iterator[tuple[str, Chain]]:
    ours = f"ct mark & {mask:#010x}"
    yield (
        "marked",
        Chain(
            (
                NftRule("iifname @outer accept", "towards the inside or this box: routed by its destination"),
                *_cut_dead(mask),
                NftRule(f"meta mark 0 meta mark set {ours} accept", "no bits of others on the packet: plain copy"),
                NftRule(f"{ours} vmap @restore", "keep the bits of others"),
            )
        ),
    )
    yield (
        "fresh",
        Chain(
            (
                NftRule("iifname vmap @arrival", "from outside: replies go back the way it came"),
                NftRule("fib daddr oifname @uplink_routes goto steer", "its route in main leaves by an uplink"),
                NftRule("fib daddr type local accept", "for this box"),
                NftRule("fib daddr oif missing goto steer", "main knows no way: an uplink may"),
            )
        ),
    )
    yield (
        "own",
        Chain(
            (
                *tuple(
                    NftRule(
                        f"meta nfproto {f.nfproto} oifname vmap @bound_{f}", "bound to an uplink by device or address"
                    )
                    for f in FAMILIES
                ),
                NftRule("goto steer", "the box follows the same policies"),
            )
        ),
    )
    yield (
        "cut",
        Chain(
            (
                NftRule(
                    "meta l4proto tcp ct state new drop",
                    "unanswered: forgotten soon, then the retry chooses again",
                ),
                NftRule("meta l4proto tcp reject with tcp reset", "fails over at once instead of hanging"),
                NftRule("reject with icmpx type host-unreachable", "fails over at once instead of hanging"),
            )
        ),
    )
    yield (
        "clamp",
        Chain(
            (
                NftRule("oifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
                NftRule("iifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
            )
        ),
    )


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
    guard = (
        NftRule(f"{ours} == {mark:#010x} accept", f"on {name}"),
        NftRule(f"meta iif 0 ct state new {ours} != 0 goto to_{name}", "a socket of this box bound to the device"),
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
            yield NftRule(f"meta nfproto {family.nfproto} accept", f"no uplink has {family.nfproto}")
    for number, rule in enumerate(given.config.rules, start=1):
        if rule.action is not None:
            verdict = {"bypass": "accept", "block": "reject with icmpx type admin-prohibited"}[rule.action]
        else:
            verdict = f"goto policy_{rule.policy or DIRECT + str(rule.uplink)}"
        for text in match_texts(rule):
            yield NftRule(f"{text} {verdict}".strip(), f"rule {number}")
    if active:
        yield NftRule("goto policy_default", "no rule matched")


def _policy(given: RulesetInput, policy: str) -> Iterator[NftRule]:
    resort = LAST_RESORT[_last_resort(given.config, policy)]
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
