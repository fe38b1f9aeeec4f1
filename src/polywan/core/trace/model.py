"""What a trace is made from, and what it says: values of `core/trace/walk.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Literal, TypeAlias

from polywan.core.marks import Numbers
from polywan.core.net import FAMILIES, Family, IPAddress, MarkLayout, TableId
from polywan.core.packet import Packet
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.routing.ahead import ahead_of
from polywan.core.ruleset.neighbours.foreign_rules import decides
from polywan.core.trace.route_query import RouteAnswer
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.lookups import Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily
from polywan.core.world.prefixes6 import translated
from polywan.core.world.shared_device import gateway_of, router_mac

_TCP = 6

Outcome: TypeAlias = Literal["uplink", "bound", "outside", "main", "here", "refused", "dropped"]
"""What becomes of a connection: chosen an uplink for, bound to one by its socket, come in by one, left to the routing
tables, ended in this box, answered with a refusal, dropped silently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceInput:
    """Everything a trace depends on but the packet.

    Attributes:
        without_us: what the kernel would do without polywan (for the box's own: its first route); None when
            nobody asked it, as with a recording: then connected networks and default routes have to do.
        affinity: uplinks that are kept for this client, by the policy's name.
    """

    config: Resolved
    lookups: Lookups
    selection: Selection
    reach: Mapping[UplinkFamily, Reach]
    observed: Observed
    without_us: RouteAnswer | None = None
    affinity: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> MarkLayout:
        """The bits of marks that are ours."""
        return self.config.layout

    @property
    def numbers(self) -> Mapping[str, Numbers]:
        """Mark, table and priorities of the uplinks."""
        return self.config.numbers

    @property
    def policy_marks(self) -> Mapping[str, Numbers]:
        """Numbers of the policies that have one of their own."""
        return self.config.policy_marks

    @property
    def fallback(self) -> TableId:
        """Number of the table that leads by any uplink."""
        return TableId(self.config.global_.table_base)

    @property
    def devices(self) -> frozenset[str]:
        """The uplinks' devices."""
        return frozenset(uplink.interface for uplink in self.config.uplinks.values())

    def holder(self, mark: int) -> str | None:
        """Name of the uplink whose mark this is, with no bit more."""
        return next((name for name, number in self.numbers.items() if number.mark == mark), None)

    def strange(self, packet: Packet) -> bool:
        """True when another program's mark has bits of ours, and no rule of others names it as a whole."""
        if not packet.mark & self.layout.mask:
            return False
        ahead = ahead_of(self.observed.rules, self.layout, self.config.marks, self.config.global_.priority)
        return all(packet.mark not in ahead.words(family) for family in FAMILIES)

    def decided_by(self, packet: Packet) -> ForeignRule | Literal["main"] | None:
        """Return the policy rule of others that decides about the packet, as in `theirs.decides`."""
        main = frozenset(family for family in FAMILIES if self.observed.main_default_links(family))
        if packet.in_interface is None and not packet.bound and packet.protocol != _TCP:
            # Routing chooses the source; of TCP alone it asks again with it.
            packet = replace(packet, source=packet.family.default.network_address)
        return decides(self.observed.rules, self.observed.tables, packet, main=main)

    def by_device(self, device: str | None) -> str | None:
        """Name of the uplink with that device; of the first one, where several have it."""
        return next((name for name, u in self.config.uplinks.items() if u.interface == device), None)

    def by_route(self, found: RouteAnswer, family: Family) -> str | None:
        """Name of the uplink by which a route leads: that of its router, where several have the device."""
        name = self.by_device(found.link)
        if name not in self.config.sharing or found.via is None:
            return name
        return next((n for n, via in self._routers(found.link, family) if via == found.via), None)

    def lets_out(self, packet: Packet, first: RouteAnswer, only: Collection[str]) -> bool:
        """True when what main sends there, without a mark, leaves by one of these uplinks: its device or its router."""
        name, via = self.by_device(first.link), first.via or packet.destination
        if name not in self.config.sharing:
            return name in only
        routers = [n for n, router in self._routers(first.link, packet.family) if router == via]
        return len(routers) == 1 and routers[0] in only

    def _routers(self, device: str | None, family: Family) -> Iterator[tuple[str, IPAddress]]:
        for name, uplink in self.config.uplinks.items():
            if uplink.interface == device and (via := gateway_of(uplink, family)) is not None:
                yield name, via

    def arrival(self, packet: Packet) -> str | None:
        """Name of the uplink by which a packet came in: where several have the device, as its router or address tells.

        None: by none, or from a host of the link itself.
        """
        name = self.by_device(packet.in_interface)
        if name is None or name not in self.config.sharing or packet.in_interface is None:
            return name
        known = list(self._routers(packet.in_interface, packet.family))
        senders = {n for n, via in known if packet.mac == router_mac(self.observed, packet.in_interface, via)}
        if len(senders) == 1 and packet.mac:
            return senders.pop()
        owners = {n for n, _ in known if packet.destination in self._own(n, packet.family)}
        return owners.pop() if len(owners) == 1 else None

    def _own(self, name: str, family: Family) -> tuple[IPAddress, ...]:
        path = _path(self, name, family)
        return () if path is None else path.addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """A rule that was tried.

    Attributes:
        number: its place in the file, from 1.
        failed: the first condition that kept it from matching, in the file's words; empty when it matched.
        excluded: the condition is one of `not`, and holds.
        seen: what the packet has there.
    """

    number: int
    failed: str = ""
    excluded: bool = False
    seen: str = ""

    @property
    def matched(self) -> bool:
        """Nothing kept it from matching."""
        return not self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class HashChoice:
    """How a hash chose: of what, its value, and the slot of `slots` that follows from it."""

    key: tuple[str, ...]
    hash: int
    slot: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """An uplink that the connection may take.

    Attributes:
        share: chance that it is this one, 0..1.
        mark: on its packets; 0 when there is none.
        table: of the uplink; None when the mark leads elsewhere (a policy's own).
        via: next hop; None on point-to-point links and when it is not known.
        source: address that the server will see; None when it is not known.
        nat: how that address comes about.
    """

    uplink: str
    share: float
    device: str
    mark: int
    table: int | None
    via: IPAddress | None
    source: IPAddress | None
    nat: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The whole story of a connection's first packet; what does not apply is None or empty.

    Attributes:
        reason: for fates without a policy, why; with a policy, why these uplinks serve.
        tried: rules in order, up to the one that matched.
        rule: number of the one that matched; None when none did.
        served_by: the policy in words, since policies made for single rules have names that say little.
        affinity: the uplink was kept from an earlier connection.
        native: an IPv6 source that not every uplink may carry decided, before the algorithm.
        specific: a specific route of main by an uplink has decided; where it came after the policy's choice, by the
            only one of `egresses`.
        egresses: the uplinks that it may take; exactly one unless the choice is a matter of turns or chance.
        link: device by which it leaves when nobody chose, as far as known.
        notes: what this answer leaves out.
    """

    packet: Packet
    outcome: Outcome
    reason: str
    tried: tuple[RuleResult, ...] = ()
    rule: int | None = None
    policy: str | None = None
    served_by: str = ""
    algorithm: str | None = None
    tier: int | None = None
    affinity: bool = False
    native: bool = False
    pick: HashChoice | None = None
    specific: bool = False
    egresses: tuple[Egress, ...] = ()
    link: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def candidates(self) -> frozenset[str]:
        """Names of the uplinks that it may take."""
        return frozenset(egress.uplink for egress in self.egresses)


def egress(inputs: TraceInput, packet: Packet, uplink: str, share: float = 1.0, mark: int | None = None) -> Egress:
    """Return how a packet travels by an uplink, with the uplink's own mark unless another one is given."""
    number, path = inputs.numbers[uplink], _path(inputs, uplink, packet.family)
    source, nat = _translated(inputs, packet, uplink, path)
    return Egress(
        uplink=uplink,
        share=share,
        device=inputs.config.uplinks[uplink].interface,
        mark=int(number.mark) if mark is None else mark,
        table=int(number.table) if mark is None else None,
        via=path.via if path else None,
        source=source,
        nat=nat,
    )


def _translated(inputs: TraceInput, packet: Packet, uplink: str, path: Path | None) -> tuple[IPAddress | None, str]:
    """The address that the server sees, and how it comes about."""
    nat = inputs.config.uplinks[uplink].nat
    if isinstance(packet.source, IPv6Address):
        seen: IPAddress | None = translated(inputs.config, inputs.observed, uplink, packet.source)
    elif isinstance(nat, str):
        seen = packet.source if nat == "none" else None
    else:
        seen = nat.snat if nat.snat.version == packet.family else packet.source
    if seen is None:
        return (path.addresses[0] if path and path.addresses else None), "masquerade: the link's own address"
    if seen == packet.source:
        return seen, "not translated"
    if not isinstance(nat, str) and seen == nat.snat:
        return seen, "fixed address"
    return seen, "prefix exchanged"


def _path(inputs: TraceInput, uplink: str, family: Family) -> Path | None:
    found = inputs.reach.get((uplink, family))
    return found.path if isinstance(found, NoPath) else found
