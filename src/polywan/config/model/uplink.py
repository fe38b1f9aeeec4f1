"""Uplinks and how they are probed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast, get_args

from pydantic import Field
from pydantic_core import PydanticCustomError

from polywan.config.faults import closest
from polywan.config.kinds.addresses import AddressValue, BothWays, Device, IPAddress, IPNetwork, Network, OneOrMany
from polywan.config.kinds.matches import DomainName
from polywan.config.kinds.scalars import Duration, Flag, Kind, OneOf, Percent, Rate, Url, Whole, rejection
from polywan.config.model.base import Command, FamilyField, Model, Seconds, Weight
from polywan.config.model.quota import Quota
from polywan.config.model.shaping import Shaping

ProbeMethod: TypeAlias = Literal["icmp", "tcp"]
CheckName: TypeAlias = Literal["dns", "http", "large", "script"]
Nat6: TypeAlias = Literal["auto", "native", "prefix", "masquerade"]

_TARGET: Final = AddressValue(no_names="a name would need DNS to judge the link that DNS needs; write the address")

_UplinkDevice: TypeAlias = Annotated[str, Device(loopback=False)]
_Targets: TypeAlias = Annotated[tuple[Annotated[IPAddress, _TARGET], ...], OneOrMany()]
_Method: TypeAlias = Annotated[ProbeMethod, OneOf(get_args(ProbeMethod))]
_Methods: TypeAlias = Annotated[tuple[_Method, ...], OneOrMany()]
_Quorum: TypeAlias = Annotated[int, Whole(1, 100)]
_Port: TypeAlias = Annotated[int, Whole(1, 65535)]
_Interval: TypeAlias = Annotated[Seconds, Duration(0.05, 3600)]
_Timeout: TypeAlias = Annotated[Seconds, Duration(0.01, 60)]
_Count: TypeAlias = Annotated[int, Whole(1, 100)]
_Prefixes: TypeAlias = Annotated[tuple[Annotated[IPNetwork, Network(6)], ...], OneOrMany(networks=True)]
_HoldDown: TypeAlias = Annotated[Seconds, Duration(0, 86400)]
_Checks: TypeAlias = Annotated[tuple[Annotated[CheckName, OneOf(get_args(CheckName))], ...], OneOrMany(empty=True)]
_Share: TypeAlias = Annotated[float, Percent()]
_Domain: TypeAlias = Annotated[str, DomainName()]
_Url: TypeAlias = Annotated[str, Url()]
_Status: TypeAlias = Annotated[int, Whole(100, 599)]


class Snat(Model):
    """Fixed source address instead of the link's own."""

    snat: Annotated[IPAddress, AddressValue()] = Field(
        description="Source address of what leaves by this uplink. No default: it is one of your provider's.",
    )


class NatForm(Kind):
    """A word, or a table with a fixed address."""

    __slots__ = ()
    words: ClassVar[tuple[str, ...]] = ("masquerade", "none")

    def _expected(self) -> str:
        return '"masquerade", "none" or {snat = "ADDRESS"}'

    def _schema(self) -> dict[str, Any]:
        return {"anyOf": [OneOf(self.words).schema, Snat.model_json_schema(by_alias=True)]}

    def _parse(self, raw: object) -> str | Snat:
        if isinstance(raw, Snat) or (isinstance(raw, str) and raw in self.words):
            return raw
        if isinstance(raw, dict) and set(raw) == {"snat"}:
            return Snat.model_construct(snat=self._address(raw["snat"]))
        if isinstance(raw, str):
            raise self.refusal(raw, closest(raw, self.words))
        raise self.refusal(raw)

    @staticmethod
    def _address(raw: object) -> IPAddress:
        try:
            return cast("IPAddress", AddressValue().parse(raw))
        except PydanticCustomError as error:
            context = error.context or {}
            raise rejection(context["message"], context["hint"], ("snat",)) from error


class HealthSettings(Model):
    """How uplinks are probed."""

    targets: _Targets = Field(
        default=(
            IPv4Address("1.1.1.1"),
            IPv4Address("8.8.8.8"),
            IPv4Address("9.9.9.9"),
            IPv6Address("2606:4700:4700::1111"),
            IPv6Address("2001:4860:4860::8888"),
            IPv6Address("2620:fe::fe"),
        ),
        description="Addresses that are probed through every uplink, each family by its own. The default names "
        "three public resolvers in different networks per family, so that an outage of one operator does not look "
        "like an outage of the uplink.",
    )
    quorum: _Quorum = Field(
        default=2,
        description="How many targets of a family must answer in a round for it to count as good; a family with "
        "fewer targets needs all of them. Default 2 of 3: one silent target does not take a link down, and one odd "
        "answer (for example of a captive portal) does not keep it up.",
    )
    methods: _Methods = Field(
        default=("icmp",),
        description="How targets are probed: icmp (echo) or tcp (a connection to tcp_port); any answer counts. "
        "Default icmp: the smallest packets, and the default targets answer them.",
    )
    tcp_port: _Port = Field(
        default=53,
        description="Port of the tcp method. Default 53, because the default targets are resolvers and answer there.",
    )
    interval: _Interval = Field(
        default=1.0,
        description="Time from the start of one round to the start of the next. Default 1s: with `fall` 3, a link "
        "that dies silently is noticed within 2.5 seconds, at a cost of about 100 bytes per second. On "
        "metered uplinks the default is 10s: a tenth of the volume, and silence is noticed within 16 seconds; while "
        "such an uplink stands by it is 2m, and silence is noticed within 2.5 minutes.",
    )
    timeout: _Timeout = Field(
        default=1.0,
        description="Time that a target has to answer. Default 1s: more than an idle line needs, and no longer "
        "than `interval`, so that rounds do not pile up. Later answers are late, not lost: they make the uplink "
        "`degraded: busy`, never down. Satellite links, with their long round trip, need no other value.",
    )
    fall: _Count = Field(
        default=3,
        description="Bad rounds in a row until the uplink counts as down. Default 3: one or two lost packets are "
        "common on a healthy link. Loss of carrier takes effect at once.",
    )
    rise: _Count = Field(
        default=5,
        description="Good rounds in a row until an uplink that was down may come back. Default 5, more than "
        "`fall`: coming back too early costs connections a second time, coming back late costs only bandwidth.",
    )
    hold_down: _HoldDown = Field(
        default=10.0,
        description="How long an uplink that was lost must answer before it serves again, counted from the first "
        "good answer. Default 10s, so that a flapping link does not move traffic back and forth with every flap. It "
        "guards against nothing else: an uplink that was never up needs only `rise` rounds.",
    )

    hold_down_max: _HoldDown = Field(
        default=900.0,
        description="Longest hold-down. Each time an uplink is lost soon after its return its hold-down doubles, "
        "up to this value; it falls back to `hold_down` once the uplink has stayed up for as long as its last "
        "hold-down, and for ten times `hold_down` at least. Default 15m: a link that never lasts comes back four "
        "times an hour at most.",
    )
    slow_start: _HoldDown = Field(
        default=60.0,
        description="Time in which an uplink that comes back grows from 1 % of its weight to all of it, in ten "
        "steps; 0 gives it all at once. Default 60s: a link that fails again under load has cost few connections by "
        "then.",
    )
    degraded_rtt: _Timeout = Field(
        default=0.5,
        description="Smoothed round trip from which an uplink counts as degraded: it stands by while another "
        "member of its tier is healthy. Default 500ms, the usual alarm threshold of firewall distributions.",
    )
    recovered_rtt: _Timeout = Field(
        default=0.2,
        description="Round trip below which the uplink counts as healthy again. Default 200ms: far enough from "
        "`degraded_rtt` that the state does not flap.",
    )
    degraded_loss: _Share = Field(
        default=0.2,
        description="Share of lost probes, over the last 30 rounds, from which an uplink counts as degraded. "
        'Default "20%": calls break up there, and an occasional lost packet is far from it.',
    )
    recovered_loss: _Share = Field(
        default=0.1, description='Share of lost probes below which the uplink counts as healthy again. Default "10%".'
    )
    degraded_jitter: _Timeout | None = Field(
        default=None,
        description="Jitter from which an uplink counts as degraded; it is healthy again below half of it. "
        "Default: none, since only calls suffer from it, and links differ too much for one number.",
    )
    passive: Annotated[bool, Flag()] = Field(
        default=True,
        description="Watch whether new connections get answers, and probe at once when suddenly none does. Default "
        "true: under load a silent death is noticed in a fraction of `interval`. Unless it is false for every "
        "uplink, idle connections of a device that goes down are also released.",
    )
    checks: _Checks = Field(
        default=(),
        description='Further layers that must work, each probed separately: "dns" (a query), "http" (a page, to '
        'find captive portals), "large" (full-size packets; their loss only degrades) and "script". Default: none, '
        "since each needs another operator's server. An uplink with `checks = []` has none of those of [health].",
    )
    check_interval: _Interval = Field(
        default=10.0,
        description="Time between two checks of a layer. Default 10s: a layer above the network breaks less often "
        "than the network. On metered uplinks the default is 60s, and 4h while they stand by.",
    )
    dns_name: _Domain = Field(
        default="example.com",
        description="Name that the dns check looks up; any answer counts, even that the name does not exist. "
        "Default: a reserved name that always exists.",
    )
    dns_servers: _Targets | None = Field(
        default=None,
        description="Servers that the dns check queries; one answer is enough. Default: the targets, which are "
        "resolvers by default. Name your provider's to notice when they fail.",
    )
    http_url: _Url | None = Field(
        default=None,
        description='Page that the http check fetches, such as "http://connectivity.example/204". No default: the '
        "server belongs to its operator.",
    )
    http_status: _Status = Field(
        default=204,
        description="Status that the page must return. Default 204: a captive portal answers with another one.",
    )
    script: Command | None = Field(
        default=None,
        description='Program and arguments of the script check, such as ["/etc/polywan/check-lte", "--fast"]; exit '
        "status 0 means healthy. It runs without a shell, in a clean environment that names the uplink. No default.",
    )

    def quorum_for(self, n: int) -> int:
        """Return how many of `n` targets of a family must answer."""
        return min(self.quorum, n)


_OVERRIDE: Final = "As in [health], for this uplink only. Default: what [health] says."


class HealthOverrides(Model):
    """Every key of [health] may also be set here, for this uplink only; absent keys have their values from [health]."""

    targets: _Targets | None = Field(default=None, description=_OVERRIDE)
    quorum: _Quorum | None = Field(default=None, description=_OVERRIDE)
    methods: _Methods | None = Field(default=None, description=_OVERRIDE)
    tcp_port: _Port | None = Field(default=None, description=_OVERRIDE)
    interval: _Interval | None = Field(
        default=None,
        description=_OVERRIDE + " If that says nothing, a metered uplink has 10s, and 2m while it stands by.",
    )
    timeout: _Timeout | None = Field(default=None, description=_OVERRIDE)
    fall: _Count | None = Field(default=None, description=_OVERRIDE)
    rise: _Count | None = Field(default=None, description=_OVERRIDE)
    hold_down: _HoldDown | None = Field(default=None, description=_OVERRIDE)
    hold_down_max: _HoldDown | None = Field(default=None, description=_OVERRIDE)
    slow_start: _HoldDown | None = Field(default=None, description=_OVERRIDE)
    degraded_rtt: _Timeout | None = Field(default=None, description=_OVERRIDE)
    recovered_rtt: _Timeout | None = Field(default=None, description=_OVERRIDE)
    degraded_loss: _Share | None = Field(default=None, description=_OVERRIDE)
    recovered_loss: _Share | None = Field(default=None, description=_OVERRIDE)
    degraded_jitter: _Timeout | None = Field(default=None, description=_OVERRIDE)
    passive: Annotated[bool, Flag()] | None = Field(default=None, description=_OVERRIDE)
    checks: _Checks | None = Field(default=None, description=_OVERRIDE)
    check_interval: _Interval | None = Field(default=None, description=_OVERRIDE)
    dns_name: _Domain | None = Field(default=None, description=_OVERRIDE)
    dns_servers: _Targets | None = Field(default=None, description=_OVERRIDE)
    http_url: _Url | None = Field(default=None, description=_OVERRIDE)
    http_status: _Status | None = Field(default=None, description=_OVERRIDE)
    script: Command | None = Field(default=None, description=_OVERRIDE)


class Bandwidth(Model):
    """Capacity of a link, bits per second."""

    down: Annotated[int, Rate()] = Field(
        description="Towards you, bit/s. No default: only you know what the provider sells.",
    )
    up: Annotated[int, Rate()] = Field(
        description="Towards the provider, bit/s. No default, since few links are symmetric.",
    )


class Uplink(Model):
    """One link to the Internet."""

    interface: _UplinkDevice = Field(
        description="Network device that leads to the provider, as `ip link` shows it. It need not exist yet (ppp0, "
        "wwan0). Several uplinks may share one, as with two modems on one switch: then each needs its `gateway`. No "
        "default: it is the one thing that cannot be guessed.",
    )
    gateway: Annotated[Literal["auto"] | IPv4Address, AddressValue(4, ("auto",))] = Field(
        default="auto",
        description='IPv4 next hop. Default "auto": taken from the default route that DHCP, pppd or you put into '
        "the main table; links with a peer (PPP) need none. Needed where another uplink has the same "
        'interface, unless `families` is ["ipv6"].',
    )
    gateway6: Annotated[Literal["auto"] | IPv6Address, AddressValue(6, ("auto",))] = Field(
        default="auto",
        description='IPv6 next hop. Default "auto": taken from router advertisements or the default route in main.',
    )
    families: Annotated[tuple[FamilyField, ...], OneOrMany()] | None = Field(
        default=None,
        description='Address families for which this uplink is used: "ipv4", "ipv6" or both. Default: those for '
        "which the link has an address and a gateway, so that IPv6 is used when the provider offers it.",
    )
    source: Annotated[IPAddress, AddressValue()] | None = Field(
        default=None,
        description="Preferred source address of the box's own traffic by this uplink. Default: the "
        "kernel's choice, which is right unless the device has several addresses.",
    )
    weight: Weight | None = Field(
        default=None,
        description="Share of new connections relative to the other members of a tier, 1 to 1000. Default: the "
        "`down` bandwidth in Mbit/s when `bandwidth` is given, else 1, so that uplinks without either share evenly. "
        "Give every uplink a weight or none: the two scales cannot be compared.",
    )
    bandwidth: Annotated[Bandwidth, BothWays()] | None = Field(
        default=None,
        description='Capacity, such as {down = "500Mbit", up = "50Mbit"}, or "500Mbit" for both directions; a '
        "plain number is bit/s. Default: unknown, since it cannot be measured without loading the link.",
    )
    metered: Annotated[bool, Flag()] = Field(
        default=False,
        description="Volume costs money: in the policy `default` that polywan makes, the uplink stands by until "
        "all unmetered ones are down, and it is probed less often: `health.interval` is 10s instead of 1s, and "
        "`health.check_interval` 60s instead of 10s. While no policy needs it and it is healthy, one target of each "
        "family is probed every 2m, and layers are checked every 4h: with the default targets and method that costs "
        "at most 20 MB a month on the wire, both families together, instead of about 250. Values set in [health] or "
        "in the uplink's own health always apply. Default false: most links are flat-rate.",
    )
    nat: Annotated[Literal["masquerade", "none"] | Snat, NatForm()] = Field(
        default="masquerade",
        description='Source address of what leaves by this uplink: "masquerade" is the device\'s own, "none" keeps '
        'the source, {snat = "ADDRESS"} sets a fixed one. Default "masquerade": it follows dynamic addresses, and '
        "providers drop sources that are not theirs.",
    )
    nat6: Annotated[Nat6, OneOf(get_args(Nat6))] = Field(
        default="auto",
        description='The same for IPv6; it applies only where `nat` is "masquerade". "native" keeps addresses, '
        '"prefix" replaces the prefix with that of the uplink and keeps the host\'s part (NPTv6, RFC 6296), '
        '"masquerade" uses the address of the device. Default "auto": sources within `prefix6` leave by their '
        "uplink unchanged; others have their prefix replaced where the uplink has one, else they are masqueraded.",
    )
    prefix6: _Prefixes = Field(
        default=(),
        description="IPv6 prefixes that this uplink's provider routes to the box, one or a list. Default: those of "
        "source-specific default routes through its device (`default from 2001:db8:a::/56 …`), which DHCPv6 clients "
        "install.",
    )
    clamp_mss: Annotated[bool, Flag()] = Field(
        default=True,
        description="Lower the segment size of forwarded TCP to what fits the link. Default true: PPPoE "
        "and LTE carry less than 1500 bytes, and the ICMP message that would say so is often filtered.",
    )
    enabled: Annotated[bool, Flag()] = Field(
        default=True,
        description="False takes the uplink out of service but keeps its settings and its mark. Default true.",
    )
    shaping: Shaping | None = Field(
        default=None,
        description="Queues of this uplink, such as `shaping = {}` with `bandwidth`. Default: none, since only you "
        "know the bandwidth; the queues that are there stay.",
    )
    quota: Quota | None = Field(
        default=None,
        description='How much data this uplink may carry, such as `quota = {monthly = "50GB"}`. Default: none, '
        "nothing is counted.",
    )
    health: HealthOverrides = Field(
        default=HealthOverrides(),
        description="Probing of this uplink where it differs from [health]. Default: no difference.",
    )
