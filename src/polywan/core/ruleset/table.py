"""Build polywan's nftables table: which chains exist, what each does, and why each rule is there.

The path of a packet (docs/design/packet-path.md has the picture)::

    prerouting ── marked, its uplink dead ──▶ reject_dead (reset, or unreachable; rules that exist only meanwhile)
        ├── marked ──▶ mark back on the packet (all later packets: one rule)
        └── new ──▶ classify ── by an uplink ──▶ to_X (replies go back the way they came)
                         └── routed to an uplink ──▶ steering_rules ──▶ policy_P ──▶ slots ──▶ to_X (choose once)
    output       the same, for the box's own packets (chain classify_local)
    challenge_ack  in output too, before connection tracking: what makes idle ends of dead connections speak
    postrouting  MSS clamp; guard_X: a connection of one uplink never leaves by another
    nat          source address per uplink

Nothing on this path grows with the number of uplinks: every lookup is one map. Both families share every
chain; where a choice depends on the family there is one map per family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from polywan.core.identity import PerKey, remembered
from polywan.core.net import CHALLENGE_PRIORITY, FAMILIES, Family, MarkLayout
from polywan.core.ruleset.exec_via import via_chains, via_entry, via_maps
from polywan.core.ruleset.inputs import (
    GOTO_UNMARKED,
    ROOM,
    RulesetInput,
    bound_map,
    device_maps,
    device_sets,
    own_set,
    restored,
    room_for,
    words_of,
)
from polywan.core.ruleset.model import Chain, Hook, Key, NftMap, NftRule, NftSet, NftTable
from polywan.core.ruleset.nat import translation_chains, translation_sets, untouched
from polywan.core.ruleset.neighbours import decided, ipsec
from polywan.core.ruleset.neighbours.answers import answer_chains, answer_maps, answer_sets
from polywan.core.ruleset.neighbours.bridged import bridged_in, bridged_out
from polywan.core.ruleset.neighbours.foreign_rules import theirs_sets
from polywan.core.ruleset.neighbours.specific_routes import specific_sets
from polywan.core.ruleset.policies import policy_chains, policy_maps
from polywan.core.ruleset.rules import steering_chains, steering_sets
from polywan.core.ruleset.shared_devices import shared_chains
from polywan.core.ruleset.untracked import untracked_chains
from polywan.core.world.paths import Path, UplinkFamily

RAW: Final = -300

LAST: Final = 100
"""Priority in prerouting and output: after marks, translation and filters of others, whoever was loaded first."""

BEFORE_OTHERS: Final = -152
"""Priority after routing: before mangle (-150), so that others compare their own marks, without bits of ours."""


def build(inputs: RulesetInput) -> NftTable:
    """Return the whole table for a selection."""
    return NftTable(
        chains=_chains(inputs),
        sets=_SETS.all_settled(_sets(inputs)),
        maps=_MAPS.all_settled(_maps(inputs)),
    )


_SETS: Final[PerKey[str, NftSet]] = PerKey()
_MAPS: Final[PerKey[str, NftMap]] = PerKey()
_CHAINS: Final[PerKey[str, Chain]] = PerKey()


def _sets(inputs: RulesetInput) -> dict[str, NftSet]:
    known = inputs.observed
    devices = device_sets(tuple((u.interface, u.clamp_mss) for u in inputs.config.uplinks.values()))
    own, clamped = own_set(known.own_ipv4(), unbound=inputs.unbound_source), devices["clamped"]
    sets = {**{n: s for n, s in devices.items() if s is not clamped}, "own": own, "clamped": clamped}
    sets |= {**steering_sets(inputs), **translation_sets(inputs), **answer_sets()}
    sets |= specific_sets(known, {u.interface for u in inputs.config.uplinks.values()})
    sets |= theirs_sets(known.rules, known.tables, main=decided.with_default(known))
    sets["ours"] = NftSet(f"type mark; {ROOM}", frozenset(int(n.mark) for n in inputs.numbers.values()))
    sets |= {f"gone_{family}": NftSet(f"type mark; {ROOM}", _gone_marks(inputs, family)) for family in FAMILIES}
    sets |= {f"dead_{family}": NftSet(f"type mark; {ROOM}", _dead_marks(inputs, family)) for family in FAMILIES}
    sets |= {
        f"down_{family}": NftSet(f"type mark; {ROOM}", _marks(inputs, inputs.selection.down, family))
        for family in FAMILIES
    }
    return sets


def _dead_marks(inputs: RulesetInput, family: Family) -> frozenset[Key]:
    """Marks whose connections are cut; with any, the reserved one."""
    marks = _marks(inputs, inputs.selection.dead, family) | inputs.world.retired
    return marks | {inputs.layout.reserved} if marks else marks


def _gone_marks(inputs: RulesetInput, family: Family) -> frozenset[Key]:
    """Those of the dead marks whose link cannot carry anything: what came in by it is cut as well."""
    lost = [key for key in inputs.selection.dead if not isinstance(inputs.reach.get(key), Path)]
    return _dead_marks(inputs, family) & (
        _marks(inputs, lost, family) | inputs.world.retired | {inputs.layout.reserved}
    )


def _marks(inputs: RulesetInput, keys: Iterable[UplinkFamily], family: Family) -> frozenset[Key]:
    return frozenset(int(inputs.numbers[name].mark) for name, f in keys if f is family)


def _maps(inputs: RulesetInput) -> dict[str, NftMap]:
    devices = tuple((u.interface, name, int(inputs.numbers[name].mark)) for name, u in inputs.config.uplinks.items())
    shared, policies = inputs.shared, tuple((int(n.mark), policy) for policy, n in inputs.policy_marks.items())
    maps = dict(device_maps(devices, policies, shared))
    known = decided.addresses(inputs)
    maps["addresses"] = NftMap(f"type ipv4_addr : verdict; {room_for(len(known))}", known)
    maps["kept"] = NftMap(f"type ifname : verdict; {ROOM}", decided.kept(inputs))
    for family in FAMILIES:
        maps[f"bound_{family}"] = bound_map(devices, inputs.main_links(family), shared)
    return {**maps, **policy_maps(inputs), **via_maps(inputs), **answer_maps()}


def _chains(inputs: RulesetInput) -> dict[str, Chain]:
    dead = tuple(family for family in FAMILIES if _dead_marks(inputs, family))
    spread = _sprayed(inputs)
    chains = {
        **_hooked(inputs.layout, dead, words_of(inputs), sprayed=bool(spread), compared=inputs.observed.compared),
        **_shared(inputs),
    }
    chains |= {
        **answer_chains(),
        **decided.of_others(inputs),
        **steering_chains(inputs),
        **translation_chains(inputs),
        **policy_chains(inputs),
    }
    chains |= untracked_chains(inputs.layout.mask)
    chains |= shared_chains(inputs, kept=decided.staying(inputs), untranslated=_UNTRANSLATED)
    chains |= {**via_chains(inputs), "classify_local": Chain((*via_entry(inputs), *chains["classify_local"].rules))}
    bridged, exempt = bridged_out(inputs.observed), untouched(inputs)
    asked = tuple(
        (
            name,
            int(inputs.numbers[name].mark),
            spread.get(name, ()),
            (*bridged, *exempt[name]) if uplink.nat != "none" else None,
        )
        for name, uplink in inputs.config.uplinks.items()
    )
    # A chain that stays the same object has what it says of its rules worked out already.
    return {**_CHAINS.all_settled(chains), **_uplinks(asked, inputs.layout, xfrm=inputs.observed.xfrm)}


@remembered
def _uplinks(
    asked: tuple[tuple[str, int, tuple[int, ...], tuple[NftRule, ...] | None], ...], layout: MarkLayout, *, xfrm: bool
) -> dict[str, Chain]:
    """The chains of all uplinks; each comes with its mark and what else `_uplink` asks for."""
    chains: dict[str, Chain] = {}
    for name, mark, sprayed, exempt in asked:
        chains.update(_uplink(name, mark, layout, sprayed, exempt, xfrm=xfrm))
    if any(exempt is not None for *_, exempt in asked):
        chains["wrong_source"] = _WRONG_SOURCE
    return chains


def _sprayed(inputs: RulesetInput) -> dict[str, tuple[int, ...]]:
    """Marks of the per-packet policies that an uplink serves, by uplink."""
    found: dict[str, tuple[int, ...]] = {}
    for name, policy in inputs.config.policies.items():
        if policy.algorithm == "per-packet" and name in inputs.policy_marks:
            for member in (m for tier in policy.tiers for m in tier):
                found[member.uplink] = (*found.get(member.uplink, ()), int(inputs.policy_marks[name].mark))
    return found


@lru_cache(maxsize=16)
def _hooked(
    layout: MarkLayout, dead: tuple[Family, ...], words: tuple[int, ...], *, sprayed: bool, compared: bool
) -> dict[str, Chain]:
    """The chains that every packet meets.

    Args:
        layout: our bits of the marks.
        dead: families in which some uplink is dead.
        words: whole-word marks of others that have bits of ours.
        sprayed: some policy deals out single packets.
        compared: other programs have chains behind routing, which may compare marks.
    """
    ours = f"ct mark & {layout.mask:#010x}"
    # Every later packet meets these first, so they are there only while something is dead.
    cut = tuple(rule for family in dead for rule in _cutting(ours, family))
    spray = (NftRule(f"ct direction original {ours} vmap @per_packet", "dealt out one by one"),) if sprayed else ()
    # Programs that save a whole mark on the connection (CONNMARK --save-mark) take ours away with each packet. The
    # address that it was translated to, or sent to from outside, tells the uplink all the same.
    lost = f"ct mark != 0 {ours} == 0"
    overwritten = (
        NftRule(f"{lost} ct direction original ct reply ip daddr vmap @addresses", "its mark was overwritten"),
        NftRule(f"{lost} ct direction reply ct original ip daddr vmap @addresses", "its mark was overwritten"),
    )
    prerouting = (
        # Whatever follows is about connections that were chosen for: a first packet with nothing on it skips it all.
        NftRule("ct state new ct mark 0 meta pkttype host goto classify", "first packet of a connection"),
        *cut,
        *spray,
        # Nearly every later packet ends at one of these two. On the way inside the mark stays off the packet: a
        # network behind another program's table is found without it.
        NftRule(
            f"meta mark 0 ct direction original {ours} != 0 meta mark set {ours} accept",
            "already chosen: the mark back on the packet",
        ),
        NftRule("ct direction reply iifname @outside_ifs accept", "an answer from outside: routed by its destination"),
        NftRule(f"{ours} vmap @restore", "the same, beside the bits of others"),
        *overwritten,
        NftRule("ct state new meta pkttype host goto classify", "the same, beside the bits of others"),
        NftRule("ip saddr @own goto spoofed", "claims to come from this box"),
    )
    output = (
        NftRule("oifname != @uplinks accept", "does not leave by an uplink"),
        *cut,
        NftRule("meta mark @ours accept", "a socket that chose for itself, as probes do"),
        NftRule(f"{ours} vmap @restore", "already chosen"),
        *overwritten,
        NftRule("ct state new goto classify_local", "first packet of a connection of this box"),
    )
    # Routing is over: what others compare from here on is their own mark.
    clean = NftRule(f"{ours} != 0 meta mark set meta mark & {layout.keep:#010x}", "routed: our bits come off")
    cleaned = (clean, *restored(layout, words))
    postrouting = (
        NftRule(f"iif 0 {clean.text}", clean.why),
        *restored(layout, words),
        NftRule("tcp flags & (syn | rst) == syn jump clamp", "only SYNs carry a segment size"),
        NftRule("oifname vmap @guards", "leaves by an uplink: is it the right one?"),
    )
    return {
        **({"challenge_ack": _challenge_chain()} if dead else {}),
        "prerouting": Chain(prerouting, Hook("filter", "prerouting", LAST)),
        "output": Chain(output, Hook("route", "output", LAST)),
        **(
            {hook: Chain(cleaned, Hook("filter", hook, BEFORE_OTHERS)) for hook in ("input", "forward")}
            if compared
            else {}
        ),
        "postrouting": Chain(postrouting, Hook("filter", "postrouting", BEFORE_OTHERS)),
    }


def _cutting(ours: str, family: Family) -> Iterator[NftRule]:
    """Who has to let go: all of a line that is gone, and what this side began on one that is silent."""
    selector = f"meta nfproto {family.nfproto}"
    # What came in by a silent line was not chosen for it, and may well be answered there: a port forward.
    yield NftRule(f"{selector} ct direction original {ours} @dead_{family} goto reject_dead", "its uplink is dead")
    yield NftRule(f"{selector} {ours} @gone_{family} goto reject_dead", "its uplink is gone")


def _challenge_chain() -> Chain:
    """What `kernel/conntrack/challenge_ack.py` sends in the name of servers."""
    # In the words of tc(8): a handle's two halves, in hexadecimal.
    sent = f"meta priority {CHALLENGE_PRIORITY >> 16:x}:{CHALLENGE_PRIORITY & 0xFFFF:x}"
    rules = (
        NftRule(f"{sent} oifname @uplinks drop", "claims to come from outside"),
        NftRule(f"{sent} notrack", "its connection has other numbers"),
    )
    return Chain(rules, Hook("filter", "output", RAW))


def _shared(inputs: RulesetInput) -> dict[str, Chain]:
    layout, words = inputs.layout, words_of(inputs)
    strangers = f"meta mark & {layout.mask:#010x} != 0"
    if words:
        strangers += f" meta mark != {{ {', '.join(f'{word:#010x}' for word in words)} }}"
    stranger = NftRule(f"{strangers} accept", "another program's mark, with bits of ours: left alone")
    here = NftRule("fib daddr type { local, broadcast, multicast } accept", "for this box, or stays on its link")
    classify = (
        *bridged_in(inputs.observed),
        NftRule("ip saddr @own goto spoofed", "claims to come from this box"),
        NftRule(
            f"{ipsec.from_outside(xfrm=inputs.observed.xfrm)}iifname vmap @arrival",
            "from outside: replies go back the way it came",
        ),
        *ipsec.unwrapped(layout, xfrm=inputs.observed.xfrm),
        stranger,
        here,
        *decided.theirs(inputs),
        *decided.asking(inputs),
        NftRule(GOTO_UNMARKED, "goes where the routing tables say"),
    )
    spoofed = (
        NftRule('iifname "lo" accept', "it does"),
        NftRule("drop", "accept_local leaves this check to us"),
    )
    local = (
        # How a DHCPv6 client gets an uplink its addresses: refused with everything else, IPv6 would never come.
        NftRule("ip6 daddr { fe80::/10, ff00::/8 } accept", "stays on its link: nothing to choose"),
        here,
        *ipsec.of_this_box(inputs),
        NftRule("udp sport 68 udp dport 67 accept", "a DHCP client renews with the server of its own link"),
        stranger,
        # Apart from this chain, which names control groups: a failover must not name one that is gone.
        NftRule("goto first", "what decides its first route?"),
    )
    cut = (
        NftRule("iifname @outside_ifs accept", "towards the inside or this box: may still arrive"),
        NftRule("meta l4proto tcp ct state new drop", "unanswered: forgotten soon, then the retry chooses again"),
        NftRule("meta l4proto tcp reject with tcp reset", "fails over at once instead of hanging"),
        NftRule("reject with icmpx type host-unreachable", "fails over at once instead of hanging"),
    )
    clamp = (
        *bridged_out(inputs.observed),
        NftRule("oifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
        NftRule("iifname @clamped tcp option maxseg size set rt mtu", "segments fit the uplink"),
    )
    off = NftRule(f"meta mark set meta mark & {layout.keep:#010x}", "our bits come off")
    return {
        "classify": Chain(classify),
        "spoofed": Chain(spoofed),
        "classify_local": Chain(local),
        "first": Chain(tuple(decided.first(inputs))),
        "unmarked": Chain((off, *restored(layout, words), NftRule("accept", "left alone"))),
        "reject_dead": Chain(cut),
        "clamp": Chain(clamp),
    }


INVALID: Final = "iif != 0 ct state invalid counter drop"
"""Of a guard whose uplink translates: connection tracking does not translate what it calls invalid."""

_UNTRANSLATED: Final = NftRule(INVALID, "would leave untranslated")

_ELSE: Final = NftRule("goto wrong_source", "does its address belong to another link?")
"""End of such a guard: one chain serves all of them, since most of the time that a whole table takes goes by rules."""

_WRONG_SOURCE: Final = Chain(
    (
        # Such as the kernel's own reset for a connection that nobody knows of any more.
        NftRule("iif 0 ct state invalid fib saddr . oif type != local counter drop", "has an address of another link"),
        # Or what began without a rule set: its entry is confirmed, so that nothing will ever be translated.
        NftRule(
            "iif 0 ct status & (confirmed | snat) == confirmed fib saddr . oif type != local counter drop",
            "has an address of another link, for good",
        ),
        # What came for an address that is gone goes where main leads. Its entry is as old as the address, and unmarked.
        NftRule(
            "iifname @outside_ifs ct status & (confirmed | snat) == confirmed counter drop",
            "came in by another uplink, and nothing translates it",
        ),
    )
)


@lru_cache(maxsize=1024)
def _uplink(
    name: str,
    mark: int,
    layout: MarkLayout,
    sprayed: tuple[int, ...],
    exempt: tuple[NftRule, ...] | None,
    *,
    xfrm: bool,
) -> tuple[tuple[str, Chain], ...]:
    """The two chains of an uplink; verdict maps lead here, since nft 1.0.6 cannot compute a masked mark from a map.

    `to_X` serves every way to a mark, the first choice and its return to a later packet alike: writing the
    connection's mark again changes nothing, and on a packet from outside the mark meets specific routes only.
    `sprayed` are the marks of policies whose packets the uplink carries one by one. `exempt` are the rules for what is
    rightly not translated when it leaves by the uplink; None where nothing is.
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
        NftRule(f"ct status ! confirmed {ours} != 0 {on_connection} accept", "routed here by something more specific"),
        *ipsec.let_out(xfrm=xfrm),
        NftRule(f"{ours} != 0 counter drop", "belongs to another uplink"),
        *(() if exempt is None else (_UNTRANSLATED, *exempt, _ELSE)),
    )
    return (
        (f"to_{name}", Chain((NftRule(f"{on_connection} {on_packet} accept", f"on {name}"),))),
        (f"guard_{name}", Chain(guard)),
    )
