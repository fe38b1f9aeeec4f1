"""Steering rules: the selectors of a connection's first packet, and the policy or action that it gets."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import Field

from polywan.config.kinds.addresses import IPNetwork, Network, OneOrMany, PortRange, Ports
from polywan.config.kinds.matches import (
    Account,
    Cgroup,
    DomainName,
    Dscp,
    ForeignMark,
    FwMark,
    ListFile,
    Mac,
    Owner,
    Span,
    Window,
)
from polywan.config.kinds.scalars import OneOf
from polywan.config.model.base import FamilyField, Interface, Model, Name

Protocol: TypeAlias = Literal["tcp", "udp", "icmp", "sctp", "gre", "esp"]
RuleAction: TypeAlias = Literal["bypass", "block"]

WITH_PORTS: Final[frozenset[Protocol]] = frozenset({"tcp", "udp", "sctp"})
"""Protocols whose header begins with two port numbers."""

_Networks: TypeAlias = Annotated[tuple[Annotated[IPNetwork, Network(ranges=True)], ...], OneOrMany(networks=True)]
_Ports: TypeAlias = Annotated[tuple[PortRange, ...], Ports()]
_Devices: TypeAlias = Annotated[tuple[Interface, ...], OneOrMany()]
_Codes: TypeAlias = Annotated[tuple[Annotated[int, Dscp()], ...], OneOrMany()]
_Macs: TypeAlias = Annotated[tuple[Annotated[str, Mac()], ...], OneOrMany()]
_Users: TypeAlias = Annotated[tuple[Annotated[Owner, Account()], ...], OneOrMany()]
_Groups: TypeAlias = Annotated[tuple[Annotated[Owner, Account(group=True)], ...], OneOrMany()]
_Cgroups: TypeAlias = Annotated[tuple[Annotated[str, Cgroup()], ...], OneOrMany()]
_Domains: TypeAlias = Annotated[tuple[Annotated[str, DomainName()], ...], OneOrMany()]
_Lists: TypeAlias = Annotated[tuple[Annotated[str, ListFile()], ...], OneOrMany()]
_Windows: TypeAlias = Annotated[tuple[Annotated[Window, Span()], ...], OneOrMany()]
_Names: TypeAlias = Annotated[tuple[Name, ...], OneOrMany()]


class Match(Model):
    """Conditions on the first packet of a connection; all those that are set must hold."""

    from_: _Networks = Field(
        default=(),
        alias="from",
        description='Source prefixes, addresses or ranges ("192.168.1.10-192.168.1.20"), one or a list; families '
        "may be mixed. Default: any.",
    )
    to: _Networks = Field(
        default=(), description="Destination prefixes, addresses or ranges, one or a list. Default: any."
    )
    protocol: Annotated[Protocol, OneOf(get_args(Protocol))] | None = Field(
        default=None, description="Transport protocol; icmp includes ICMPv6. Default: any."
    )
    port: _Ports = Field(
        default=(),
        description='Destination ports: 443, "80,443", "1000-2000" or a list of these; needs `protocol` tcp, udp '
        "or sctp, because other protocols have no ports. Default: any.",
    )
    source_port: _Ports = Field(default=(), description="Source ports, in the same form as `port`. Default: any.")
    in_interface: _Devices = Field(
        default=(),
        description="Devices on which the connection arrives, one or a list; the box's own connections arrive on "
        "none. Default: any.",
    )
    dscp: _Codes = Field(
        default=(),
        description='DSCP of the packet, by name ("ef", "cs1", "af41") or number, one or a list; a ToS byte is '
        "four times the DSCP. Default: any.",
    )
    mac: _Macs = Field(
        default=(),
        description="Hardware address of the neighbour that sent it, one or a list; the box's own connections have "
        "none. Default: any.",
    )
    fwmark: Annotated[FwMark, ForeignMark()] | None = Field(
        default=None,
        description='Packet mark that another program has set, such as "0x10/0xff", or "0x10" for all bits except '
        "those of `mark_mask`, which cannot be matched. Default: any.",
    )
    user: _Users = Field(
        default=(),
        description="User whose program opened the connection, by name or number, one or a list; only the box's own "
        "connections have one. Default: any.",
    )
    group: _Groups = Field(default=(), description="Group of that program, in the same form as `user`. Default: any.")
    cgroup: _Cgroups = Field(
        default=(),
        description="Control group (version 2) of the program that opened the connection, such as "
        '"system.slice/backup.service", one or a list, with everything below it. Default: any.',
    )
    domains: _Domains = Field(
        default=(),
        description="Destination names, one or a list. polywan resolves them, and again when their time to live is "
        "over; names with many addresses, or subdomains, are exact only when the box's dnsmasq fills the set "
        "(`polywan show dnsmasq`). Default: any.",
    )
    list_: _Lists = Field(
        default=(),
        alias="list",
        description="Files of destination prefixes, with one prefix or address per line and # for comments; "
        "families may be mixed. polywan reads them again when they change. Default: any.",
    )
    time: _Windows = Field(
        default=(),
        description='When the rule applies, in local time: "mon-fri 08:00-18:00", "sat,sun" or "22:00-06:00" '
        "(which ends on the next day), one or a list. The time at which a connection begins counts. Default: "
        "always.",
    )
    family: FamilyField | None = Field(default=None, description="Address family. Default: both.")


class SteeringRule(Match):
    """The first rule that matches decides; each has one of policy, uplink and action, or `only` alone.

    `only` may also accompany policy or uplink.
    """

    policy: Name | None = Field(
        default=None,
        description="Name of the policy that chooses the uplink. No default: a rule has exactly one of policy, "
        "uplink and action, or `only` alone.",
    )
    uplink: Name | None = Field(
        default=None,
        description="Name of the preferred uplink; while it is down, the policy `default` chooses among "
        "the others. No default.",
    )
    action: Annotated[RuleAction, OneOf(get_args(RuleAction))] | None = Field(
        default=None,
        description='"bypass" leaves the connection to the main table, "block" refuses it. No default.',
    )
    only: _Names = Field(
        default=(),
        description="Uplinks that such connections may leave by: a kill switch. They never leave elsewhere, "
        "whatever happens to the daemon, to routes or to rules; while none of these uplinks is up they are refused. "
        "Alone it shares among them by weight; with `policy` or `uplink` it limits those. Neither this rule nor one "
        "before it can match a `cgroup`, which is not known where packets leave. Default: any uplink.",
    )
    not_: Match = Field(
        default=Match(),
        alias="not",
        description='Conditions that must *not* hold, for example not = {to = "10.0.0.0/8"}; with several, none '
        "may hold. Default: none.",
    )
