"""Policies, and the rules that send connections to them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from polywan.config.base import NAME, FamilyField, Interface, Model, Name, Weight
from polywan.config.faults import shown
from polywan.config.netvalues import IPNetwork, Network, OneOrMany, PortRange, Ports
from polywan.config.values import Choice, Kind, rejection

Algorithm: TypeAlias = Literal["weighted"]
LastResort: TypeAlias = Literal["unreachable", "prohibit", "blackhole", "main"]
Protocol: TypeAlias = Literal["tcp", "udp", "icmp", "sctp", "gre", "esp"]
RuleAction: TypeAlias = Literal["bypass", "block"]

WITH_PORTS: Final[frozenset[Protocol]] = frozenset({"tcp", "udp", "sctp"})
"""Protocols whose header begins with two port numbers."""

_Networks: TypeAlias = Annotated[tuple[Annotated[IPNetwork, Network()], ...], OneOrMany(networks=True)]
_Ports: TypeAlias = Annotated[tuple[PortRange, ...], Ports()]
_Devices: TypeAlias = Annotated[tuple[Interface, ...], OneOrMany()]


class Member(Model):
    """An uplink's place in a tier; the weight defaults to the uplink's own."""

    uplink: Name = Field(description="Name of the uplink. No default.")
    weight: Weight | None = Field(
        default=None,
        description="Share within this tier, 1 to 1000. Default: the uplink's own weight, which is right "
        "for most policies.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, raw: object) -> object:
        if isinstance(raw, str):
            return {"uplink": raw}
        if not isinstance(raw, dict | Member):
            raise rejection(f"expected an uplink's name or {{uplink = NAME, weight = NUMBER}}, got {shown(raw)}")
        return raw


class TierList(Kind):
    """Around the tiers: lists of lists only, as a flat list could mean sharing as well as failing over."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core)
        schema["minItems"] = schema["items"]["minItems"] = 1
        schema["items"]["items"] = {"anyOf": [NAME.schema, schema["items"]["items"]]}
        return schema

    def _expected(self) -> str:
        return 'a list of tiers, each a list of uplinks, as [["fibre", "dsl"], ["lte"]]'

    def _parse(self, raw: object) -> object:
        if not isinstance(raw, list | tuple) or not raw:
            raise self.refusal(raw)
        for place, tier in enumerate(raw):
            if isinstance(tier, str | dict):
                raise rejection(
                    f"expected {self.expected}, got {shown(tier)} in place of a tier",
                    'in [["a", "b"]] the two share, in [["a"], ["b"]] the second stands by',
                    (place,),
                )
            if not isinstance(tier, list | tuple) or not tier:
                raise rejection(f"expected a tier with at least one uplink, got {shown(tier)}", "", (place,))
        return raw


class Policy(Model):
    """Which uplinks serve a class of connections: the first tier with a healthy member."""

    algorithm: Annotated[Algorithm, Choice(get_args(Algorithm))] = Field(
        default="weighted",
        description='How new connections are spread over a tier: "weighted" deals them out in turn by '
        "weight, exactly and interleaved. The default, because shares then hold for a handful of "
        "connections as well.",
    )
    tiers: Annotated[tuple[tuple[Member, ...], ...], TierList()] = Field(
        description='Uplinks in order of preference, as [["fibre", "dsl"], ["lte"]]: members of a tier '
        "share, the next tier stands by until no member of the one before is up. A member is a name or "
        "{uplink = NAME, weight = NUMBER}. No default; the policy `default` exists without being written, "
        "with the unmetered uplinks as its first tier and the metered ones as its second.",
    )
    last_resort: Annotated[LastResort, Choice(get_args(LastResort))] = Field(
        default="unreachable",
        description='What happens to new connections when no uplink of any tier is up: "unreachable" and '
        '"prohibit" answer with that ICMP message, "blackhole" drops, "main" lets the main table decide. '
        'Default "unreachable": programs fail at once instead of waiting, and nothing leaves where the '
        "policy did not allow it.",
    )


class Match(Model):
    """Conditions on a connection's first packet; all given ones must hold."""

    from_: _Networks = Field(
        default=(),
        alias="from",
        description="Source prefixes or addresses, one or a list, both families mixed if need be. Default: any.",
    )
    to: _Networks = Field(default=(), description="Destination prefixes or addresses, one or a list. Default: any.")
    protocol: Annotated[Protocol, Choice(get_args(Protocol))] | None = Field(
        default=None, description="Transport protocol; icmp stands for ICMPv6 as well. Default: any."
    )
    port: _Ports = Field(
        default=(),
        description='Destination ports: 443, "80,443", "1000-2000" or a list of these; needs `protocol` '
        "tcp, udp or sctp, because the others have no ports. Default: any.",
    )
    source_port: _Ports = Field(default=(), description="Source ports, written as `port` is. Default: any.")
    in_interface: _Devices = Field(
        default=(),
        description="Devices the connection arrives by, one or a list; the box's own connections arrive "
        "by none. Default: any.",
    )
    family: FamilyField | None = Field(default=None, description="Address family. Default: both.")


class SteeringRule(Match):
    """First match wins; exactly one of policy, uplink, action."""

    policy: Name | None = Field(
        default=None,
        description="Name of the policy that chooses the uplink. No default: a rule says exactly one of "
        "policy, uplink and action.",
    )
    uplink: Name | None = Field(
        default=None,
        description="Name of the preferred uplink; while it is down, the policy `default` chooses among "
        "the others. No default.",
    )
    action: Annotated[RuleAction, Choice(get_args(RuleAction))] | None = Field(
        default=None,
        description='"bypass" leaves the connection to the main table, "block" refuses it. No default.',
    )
    not_: Match = Field(
        default=Match(),
        alias="not",
        description='Conditions that must *not* hold, as not = {to = "10.0.0.0/8"}; with several, none '
        "may hold. Default: none.",
    )
