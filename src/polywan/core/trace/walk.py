"""Which way would a connection take? The path of its first packet through polywan's chains, decided on paper.

The order is that of the chains (docs/design/packet-path.md): what comes before the rules (`classify`,
`classify_local`), the rules (`steering_rules`), the policy (`core/trace/choose.py`), and what a specific route changes
afterwards (`guard_X`). Nothing here asks the kernel: its answers come in with the `TraceInput`, and
`core/trace/explain.py` holds them against the trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Network
from typing import Final

from polywan.config import SteeringRule
from polywan.config.kinds.matches import DAYS
from polywan.config.model.numbering import policy_name
from polywan.core.net import PROTOCOL_NAMES, TABLE_MAIN, UNBOUND_SOURCE, Family
from polywan.core.packet import Packet
from polywan.core.resolved import served_by
from polywan.core.routing.first_route import has_source, ours_to_balance
from polywan.core.routing.routes import first_table
from polywan.core.ruleset.conditions import conditions
from polywan.core.ruleset.exec_via import serves
from polywan.core.ruleset.neighbours.specific_routes import specific_networks
from polywan.core.trace.choose import choose
from polywan.core.trace.model import RuleResult, Trace, TraceInput, egress
from polywan.core.trace.route_query import UNKNOWN_TABLE, AnswerKind, RouteAnswer
from polywan.core.world.destinations import destination
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.lookups import VIA, Lookups, via_group
from polywan.core.world.paths import Path, unbound_links

_ON_LINK: Final = (IPv6Network("fe80::/10"), IPv6Network("ff00::/8"))
_TCP, _UDP = 6, 17
_DHCP: Final = (_UDP, 68, 67)
"""Protocol and ports of a DHCP client's packets to its server."""
_STRANGE: Final = "its mark {:#x} of another program has bits of polywan: left alone, as the two cannot be told apart"
_REFUSALS: Final = ("unreachable", "prohibit", "blackhole", "none")
_REFUSED: Final[Mapping[str, AnswerKind]] = {
    "unreachable": "unreachable",
    "prohibit": "prohibit",
    "blackhole": "blackhole",
}


def trace(inputs: TraceInput, packet: Packet) -> Trace:
    """Return the way of a connection that begins with this packet."""
    first = inputs.without_us or expected(inputs, packet)
    before = _arriving(inputs, packet, first) if packet.in_interface is not None else _outgoing(inputs, packet, first)
    return _watched(inputs, before or _steered(inputs, packet, first), first)


def _steered(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> Trace:
    found = _steer(inputs, packet)
    overruling = inputs.by_route(first, packet.family) if _is_specific(inputs, packet, first) else None
    if found.outcome == "uplink" and overruling is not None:
        only = egress(inputs, packet, overruling)
        return replace(found, specific=True, pick=None, affinity=False, native=False, notes=(), egresses=(only,))
    if found.outcome == "main":
        return replace(found, link=first.link)
    return _kept(inputs, packet, first, found) if found.rule is None and packet.protocol != _TCP else found


def _kept(inputs: TraceInput, packet: Packet, first: RouteAnswer, found: Trace) -> Trace:
    """What this box sends and no rule matches: all but TCP stays on the link of main's default (`steering_rules`)."""
    by = inputs.by_route(first, packet.family)
    main = unbound_links(inputs.observed, inputs.reach, inputs.numbers, packet.family)
    lost = inputs.selection.dead | inputs.selection.down
    own = packet.in_interface is None and packet.family is Family.V4
    if not own or by is None or first.link not in main or (by, packet.family) in lost:
        return found
    reason = f"no rule matches, and its socket may be bound to {by}: it stays there while that uplink works"
    traced = Trace(packet=packet, outcome="bound", reason=reason, egresses=(egress(inputs, packet, by),))
    return replace(traced, tried=found.tried)


def _doubtful(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> bool:
    """True when nothing shows whether a socket of this box is bound: by the link of main's default, but for TCP."""
    main = unbound_links(inputs.observed, inputs.reach, inputs.numbers, packet.family)
    if first.link not in main:
        return False
    return packet.family is Family.V6 or packet.protocol != _TCP or not has_source(inputs.config, inputs.observed)


def expected(inputs: TraceInput, packet: Packet) -> RouteAnswer:
    """Guess what the kernel would answer without us, from addresses, default routes and rules of others alone."""
    observed = inputs.observed
    if any(a.ip.ip == packet.destination for a in observed.addresses):
        return RouteAnswer(kind="local", link="lo")
    if packet.destination.is_multicast:
        return RouteAnswer(kind="multicast")
    if isinstance(rule := inputs.decided_by(packet), ForeignRule):
        return _led(inputs, packet, rule)
    connected = [a for a in observed.addresses if packet.destination in a.ip.network]
    usable = [a for a in connected if a.link in observed.links and observed.links[a.link].usable]
    if usable:
        best = max(usable, key=lambda a: a.ip.network.prefixlen)
        return RouteAnswer(kind="unicast", link=best.link, table=TABLE_MAIN, prefix=best.ip.network.prefixlen)
    own = packet.in_interface is None
    if packet.bound and (bound := _by_source(inputs, packet)) is not None:
        return bound
    main = [d for d in observed.defaults if d.family is packet.family and d.table == TABLE_MAIN]
    usable_main = [d for d in main if d.link in observed.links and observed.links[d.link].usable]
    if not usable_main:
        return RouteAnswer(kind="none")
    chosen = min(usable_main, key=lambda d: d.metric)
    found = RouteAnswer(kind="unicast", link=chosen.link, via=chosen.via, table=TABLE_MAIN, prefix=0)
    unbound = own and packet.family is Family.V4 and packet.protocol == _TCP and not packet.bound
    if unbound and inputs.by_device(chosen.link) is not None and has_source(inputs.config, observed):
        return replace(found, source=UNBOUND_SOURCE, table=first_table(inputs.fallback))
    return found


def _led(inputs: TraceInput, packet: Packet, rule: ForeignRule) -> RouteAnswer:
    known = destination(rule, inputs.observed.tables, packet)
    refusal = _REFUSED.get(rule.action) or (_REFUSED.get(known.kind) if known is not None else None)
    if refusal is not None or known is None:
        return RouteAnswer(kind=refusal or "none")
    table = rule.table or UNKNOWN_TABLE
    return RouteAnswer(kind="unicast", link=known.link, table=table, prefix=known.prefix.prefixlen)


def _by_source(inputs: TraceInput, packet: Packet) -> RouteAnswer | None:
    """The policy rules `from ADDRESS`: what has an uplink's address leaves by it."""
    for (name, family), found in inputs.reach.items():
        if family is packet.family and isinstance(found, Path) and packet.source in found.addresses:
            table = inputs.numbers[name].table
            return RouteAnswer(kind="unicast", link=found.link, via=found.via, table=table, prefix=0)
    return None


def _arriving(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> Trace | None:
    """What chain `classify` settles before the rules."""
    own = inputs.observed.own_ipv4()
    if isinstance(packet.source, IPv4Address) and packet.source in own and packet.in_interface != "lo":
        return Trace(
            packet=packet, outcome="dropped", reason=f"{packet.source} is an address of this box: a spoofed source"
        )
    if (arrival := inputs.arrival(packet)) is not None:
        reason = f"it arrives by {arrival}: answers leave by it too"
        return Trace(packet=packet, outcome="outside", reason=reason, egresses=(egress(inputs, packet, arrival),))
    if packet.in_interface in inputs.devices:
        return _not_ours(packet, first, f"it arrives by {packet.in_interface}, but from no router of an uplink there")
    if inputs.strange(packet):
        return _strange(inputs, packet, first)
    if first.kind == "local":
        traced = Trace(packet=packet, outcome="here", reason="it is for this box itself")
        return replace(traced, notes=("if another program translates the destination, ask about the new one",))
    if first.kind in ("broadcast", "multicast"):
        return Trace(
            packet=packet, outcome="main", reason=f"a {first.kind} address: polywan leaves it alone", link=first.link
        )
    if isinstance(rule := inputs.decided_by(packet), ForeignRule):
        return _by_others(packet, rule, first)
    if _is_specific(inputs, packet, first):
        return _by_specific(inputs, packet, first)
    if not ours_to_balance(inputs.observed, inputs.devices, packet.family):
        return _not_ours(packet, first, _elsewhere(first))
    return None


def _outgoing(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> Trace | None:
    """What chains `output` and `classify_local` settle before the rules; routing comes before them."""
    rule = inputs.decided_by(packet)
    if first.kind == "local":
        return Trace(packet=packet, outcome="here", reason="it is for this box itself")
    if first.kind in _REFUSALS:
        if isinstance(rule, ForeignRule):
            return _by_others(packet, rule, first)
        return Trace(packet=packet, outcome="refused", reason=f"the box has no route for it ({first.kind})")
    by = inputs.by_device(first.link)
    if by is None:
        if isinstance(rule, ForeignRule) and first.table == rule.table:
            return _by_others(packet, rule, first)
        return _not_ours(packet, first, _elsewhere(first))
    if (holder := inputs.holder(packet.mark)) is not None:
        reason = f"its socket has set the mark of {holder} itself"
        return Trace(packet=packet, outcome="bound", reason=reason, egresses=(egress(inputs, packet, holder),))
    if (via := _via(inputs, packet)) is not None:
        return via
    if first.kind in ("broadcast", "multicast") or any(packet.destination in n for n in _ON_LINK):
        return _not_ours(packet, first, "it stays on its link")
    if (packet.protocol, packet.source_port, packet.port) == _DHCP:
        return _not_ours(packet, first, "a DHCP client asks the server of its own link")
    if inputs.strange(packet):
        return _strange(inputs, packet, first)
    return _decided(inputs, packet, first, by)


def _decided(inputs: TraceInput, packet: Packet, first: RouteAnswer, by: str) -> Trace | None:
    """Who has decided the first route of a packet of this box that leaves by an uplink; None for main's default."""
    if packet.family is Family.V4 and first.table == first_table(inputs.fallback):
        return None
    devices = {u.interface for u in inputs.config.uplinks.values()}
    known = any(packet.destination in n for n in specific_networks(inputs.observed, devices, packet.family))
    if known or (packet.family is Family.V4 and _is_specific(inputs, packet, first)):
        return _by_specific(inputs, packet, first)
    rule = inputs.decided_by(packet)
    if isinstance(rule, ForeignRule):
        return _by_others(packet, rule, first)
    if _doubtful(inputs, packet, first):
        return None
    specific = _is_specific(inputs, packet, first)
    if (by_router := inputs.by_route(first, packet.family)) is None:
        return _not_ours(packet, first, f"it leaves by {first.link}, but by no router of an uplink there")
    by = by_router
    reason = f"main has a specific route by {by}" if specific else f"its socket is bound to {by}"
    return replace(_bound(inputs, packet, by), reason=reason, specific=specific)


def _bound(inputs: TraceInput, packet: Packet, by: str) -> Trace:
    reason = f"its socket is bound to {by}"
    return Trace(packet=packet, outcome="bound", reason=reason, egresses=(egress(inputs, packet, by),))


def _not_ours(packet: Packet, first: RouteAnswer, reason: str) -> Trace:
    if first.kind in _REFUSALS:
        return Trace(packet=packet, outcome="dropped" if first.kind == "blackhole" else "refused", reason=reason)
    return Trace(packet=packet, outcome="main", reason=reason, link=first.link)


def _strange(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> Trace:
    """Another program's mark that nobody could tell from ours: whoever decides without us does."""
    rule = inputs.decided_by(packet)
    if isinstance(rule, ForeignRule) and (first.kind in _REFUSALS or first.table == rule.table):
        return _by_others(packet, rule, first)
    return _not_ours(packet, first, _STRANGE.format(packet.mark))


def _by_others(packet: Packet, rule: ForeignRule, first: RouteAnswer) -> Trace:
    return _not_ours(packet, first, f"rule of another program: {rule.text()}")


def _by_specific(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> Trace:
    if inputs.by_device(first.link) is None:
        return _not_ours(packet, first, _elsewhere(first))
    traced = _not_ours(packet, first, f"main has a specific route by {first.link}: polywan leaves it alone")
    return replace(traced, specific=True)


def _via(inputs: TraceInput, packet: Packet) -> Trace | None:
    """Programs of `exec --via` (chain `via`)."""
    group = packet.cgroup or ""
    if VIA not in inputs.lookups.cgroups or f"{group}/".partition("/")[0] != VIA:
        return None
    name = next((n for n in inputs.config.uplinks if f"{group}/".startswith(f"{via_group(n)}/")), None)
    if name is None or via_group(name) not in inputs.lookups.cgroups:
        return Trace(packet=packet, outcome="refused", reason="started by exec --via, and its uplink is not known")
    if not serves(inputs.config, name, packet.family, inputs.reach, inputs.selection):
        return Trace(packet=packet, outcome="refused", reason=f"started by exec --via {name}, which does not serve")
    return Trace(
        packet=packet, outcome="bound", reason=f"started by exec --via {name}", egresses=(egress(inputs, packet, name),)
    )


def _elsewhere(first: RouteAnswer) -> str:
    return f"without polywan it leaves by {first.link}, which is not an uplink: polywan leaves it alone"


def _is_specific(inputs: TraceInput, packet: Packet, first: RouteAnswer) -> bool:
    """True when main has more than a default for the destination: it decides."""
    if first.kind != "unicast" or first.table != TABLE_MAIN:
        return False
    prefix = first.prefix
    if prefix is None:
        prefix = expected(inputs, packet).prefix
    return bool(prefix)


def _steer(inputs: TraceInput, packet: Packet) -> Trace:
    """The rules in order, then the policy of the first that matches."""
    tried = _tried(inputs, packet)
    if not tried or not tried[-1].matched:
        return replace(choose(inputs, packet, "default"), tried=tried)
    number = tried[-1].number
    return replace(_matched(inputs, packet, inputs.config.rules[number - 1]), tried=tried, rule=number)


def _tried(inputs: TraceInput, packet: Packet) -> tuple[RuleResult, ...]:
    tried: list[RuleResult] = []
    theirs = replace(packet, mark=packet.mark & inputs.layout.keep)
    for number, rule in enumerate(inputs.config.rules, start=1):
        tried.append(_try(number, rule, theirs, inputs.lookups))
        if tried[-1].matched:
            break
    return tuple(tried)


def _watched(inputs: TraceInput, found: Trace, first: RouteAnswer) -> Trace:
    """The kill switch (`kill_switch`): what the rule's uplinks do not carry leaves by nobody, whoever sent it there."""
    packet = found.packet
    chosen_by_socket = packet.in_interface is None and inputs.holder(packet.mark) is not None
    if found.outcome not in ("uplink", "bound", "main") or chosen_by_socket:
        return found
    tried = found.tried or _tried(inputs, packet)
    rule = inputs.config.rules[tried[-1].number - 1] if tried and tried[-1].matched else None
    if rule is None or not rule.only:
        return found
    outside = inputs.devices | {d.link for d in inputs.observed.defaults}
    if found.outcome == "main":
        devices, passes = [found.link], found.link not in outside or inputs.lets_out(packet, first, rule.only)
    else:
        devices, passes = [w.device for w in found.egresses], all(w.uplink in rule.only for w in found.egresses)
    if passes:
        return found
    reason = f"rule {tried[-1].number} lets it leave by {' or '.join(rule.only)} only, and it would leave by "
    reason += " or ".join(str(device) for device in devices)
    return Trace(packet=packet, outcome="dropped", reason=reason, tried=tried, rule=tried[-1].number)


def _try(number: int, rule: SteeringRule, packet: Packet, lookups: Lookups) -> RuleResult:
    """Find the first condition that keeps a rule from matching: one that does not hold, or one of `not` that does."""
    for excluded, match in ((False, rule), (True, rule.not_)):
        for condition in conditions(match, rule.protocol, lookups):
            if condition.holds(packet) is excluded:
                seen = _seen(condition.key, packet, lookups)
                return RuleResult(number=number, failed=condition.words, excluded=excluded, seen=seen)
    return RuleResult(number=number)


def _seen(key: str, packet: Packet, lookups: Lookups) -> str:
    """What a packet has where a condition looks."""
    local = datetime.fromtimestamp(packet.at + lookups.utc_offset, UTC)
    values: dict[str, object] = {
        "from": packet.source,
        "to": packet.destination,
        "list": packet.destination,
        "domains": packet.destination,
        "in_interface": packet.in_interface or "this box",
        "protocol": PROTOCOL_NAMES.get(packet.protocol, packet.protocol),
        "source_port": packet.source_port,
        "port": packet.port,
        "dscp": packet.dscp,
        "mac": packet.mac,
        "fwmark": f"{packet.mark:#x}",
        "user": packet.user,
        "group": packet.group,
        "cgroup": packet.cgroup,
        "time": f"{DAYS[local.weekday()]} {local:%H:%M}",
        "family": packet.family.nfproto,
    }
    found = values[key]
    return "not known" if found is None else str(found)


def _matched(inputs: TraceInput, packet: Packet, rule: SteeringRule) -> Trace:
    match rule.action:
        case "bypass":
            return Trace(packet=packet, outcome="main", reason="the rule leaves it to the routing tables")
        case "block":
            return Trace(packet=packet, outcome="refused", reason="the rule blocks it")
        case None:
            return replace(choose(inputs, packet, policy_name(rule)), served_by=served_by(rule))
