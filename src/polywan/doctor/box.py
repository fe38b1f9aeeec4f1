"""A machine as the checks see it: values, read once before all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from polywan.api.doctor import Finding
from polywan.api.events import LinkEvent
from polywan.api.status import Status
from polywan.config import Config
from polywan.core.firewall.model import Firewall
from polywan.core.net import TABLE_MAIN, Family, IPAddress
from polywan.core.plan.lans import Lan
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.observed import Observed
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.line import LineFacts
from polywan.doctor.facts.locks import Lock
from polywan.doctor.facts.machine import MachineFacts
from polywan.doctor.facts.programs import ProgramFacts
from polywan.doctor.facts.routes import TableRoute

REMOTE: Final[Mapping[Family, IPAddress]] = {
    Family.V4: IPv4Address("1.1.1.1"),
    Family.V6: IPv6Address("2606:4700:4700::1111"),
}
"""An address on the Internet for questions to the kernel's routing; nothing is sent there."""


def ignoring(family: Family, device: str) -> str:
    """Return the setting (ip-sysctl) by which routes over a device without carrier are passed over."""
    return f"net/ipv{family}/conf/{device}/ignore_routes_with_linkdown"


class OwnWarnings(NamedTuple):
    """What polywan warns of.

    Attributes:
        standing: of the file on this box, each with advice behind its last semicolon.
        passing: what only a running daemon knows.
    """

    standing: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


class HalfOpen(NamedTuple):
    """Connections whose SYN was answered while the client never spoke again (SYN_RECV), of one mark."""

    mark: int
    connections: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A machine.

    Attributes:
        observed: links, addresses, defaults and policy rules of others.
        config, config_path: the file, where there is a good one; `config_faults`: what is wrong with it.
        status: what a running daemon says; None without one.
        in_force: the configuration that the running daemon works by, as JSON has it; None without one.
        warnings: what polywan itself warns of, but for what there are checks for.
        lacking: what the kernel and the system lack of what polywan needs; of a box that has a file and no daemon.
        egresses: by which links, tables and marks connections leave.
        lans: networks behind this box.
        routes: default routes and connected routes of every table.
        firewall: rules of others.
        answers: the kernel's, to the questions of all checks.
        settings: below /proc/sys, by path.
        counters: of /proc/net/netstat and /proc/net/snmp, as "TcpExtIPReversePathFilter" (nstat(8)).
        half_open: by mark.
        events: of the last day, from the journal.
        scripts: text of files that set up networks, by path.
        locks: files that scripts speak of, and that are there.
        line: what the lines answered.
        programs: other programs, their files and units.
        machine: the rest of the box: files, units, tools, clock.
        now: Unix seconds.
        unread: what could not be read, by name of the attribute, and why; `line.gateways` and the like stand for what
            of `line` is not known.
    """

    observed: Observed = field(default_factory=lambda: Observed(links={}))
    config: Config | None = None
    config_path: str = ""
    config_faults: tuple[str, ...] = ()
    status: Status | None = None
    in_force: Mapping[str, Any] | None = None
    warnings: OwnWarnings = field(default_factory=OwnWarnings)
    lacking: tuple[str, ...] = ()
    egresses: tuple[Egress, ...] = ()
    lans: tuple[Lan, ...] = ()
    routes: tuple[TableRoute, ...] = ()
    firewall: Firewall = field(default_factory=Firewall)
    answers: Mapping[RouteQuery, RouteAnswer] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    half_open: tuple[HalfOpen, ...] = ()
    events: tuple[LinkEvent, ...] = ()
    scripts: Mapping[str, str] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()
    line: LineFacts = field(default_factory=LineFacts)
    programs: ProgramFacts = field(default_factory=ProgramFacts)
    machine: MachineFacts = field(default_factory=MachineFacts)
    now: float = 0.0
    unread: Mapping[str, str] = field(default_factory=dict)

    def setting(self, path: str) -> int | None:
        """Return a setting that is a number; None when this kernel does not have it."""
        value = self.settings.get(path, "")
        return int(value) if value.isdecimal() else None

    def sending(self, family: Family) -> tuple[Egress, ...]:
        """Those of a family."""
        return tuple(egress for egress in self.egresses if egress.family is family)

    def in_use(self, family: Family) -> tuple[Egress, ...]:
        """Those of a family that serve at the same time; one for which main has a worse default stands by."""
        best = self.observed.main_default_links(family)
        return tuple(e for e in self.sending(family) if e.table != TABLE_MAIN or e.device in best)

    def passes_over(self, family: Family, device: str) -> bool:
        """True when the kernel does not use routes by a device without carrier: either setting is enough."""
        own = self.setting(ignoring(family, device))
        return own != 0 or self.setting(ignoring(family, "all")) == 1

    def inside(self, family: Family) -> tuple[Lan, ...]:
        """The networks of a family behind this box."""
        return tuple(lan for lan in self.lans if lan.network.version == family)


class Check(NamedTuple):
    """One check.

    Attributes:
        name: as its file, with hyphens.
        look: yields what it finds.
        needs: attributes of `Box` without which it cannot tell.
        asks: questions to the kernel's routing that it wants answered.
    """

    name: str
    look: Callable[[Box], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    asks: Callable[[Box], Iterable[RouteQuery]] = lambda box: ()  # noqa: ARG005 - most ask nothing
