"""What lines answer and what follows: faults are named, and what only looks like one is not."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from polywan.api.doctor import Finding
from polywan.api.events import LinkEvent
from polywan.config import Config, load_text
from polywan.core.firewall import iptables
from polywan.core.firewall.model import Firewall
from polywan.core.net import TABLE_MAIN, Family
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.observed import Address, Observed
from polywan.doctor.box import Box
from polywan.doctor.checks.line import LINE, asymmetric_ipv6
from polywan.doctor.facts import port
from polywan.doctor.facts.egress import Egress, egresses
from polywan.doctor.facts.line import GatewayAnswer, LineFacts, PageAnswer, PathSize, Resolver, ResolverAnswer
from polywan.doctor.facts.port import PortCounters, PortMode
from polywan.doctor.facts.resolvers import nameservers, owned, value_of
from polywan.doctor.facts.routes import Hop, TableRoute
from polywan.doctor.reading import resolvers
from support import documents
from support.engine_world import config, link, world

CHECKS = {check.name: check for check in LINE}
V4, V6 = Family.V4, Family.V6
A, B, C = (ip_address(f"203.0.113.{n}") for n in (1, 2, 3))


def found(name: str, box: Box) -> list[Finding]:
    return list(CHECKS[name].look(box))


def box_of(observed: Observed, **more: Any) -> Box:
    known = {"egresses": egresses(observed, more.get("config"), more.get("status"))}
    return Box(observed=observed, **known | more)


def by(number: int, family: Family = V4, **more: Any) -> Egress:
    via = ip_address(f"100.64.{number}.1" if family is V4 else f"2001:db8:64:{number}::1")
    return Egress(
        **{"name": f"wan{number}", "device": f"wan{number}", "family": family, "table": 254, "via": via, **more}
    )


def silent(number: int, **more: Any) -> GatewayAnswer:
    known: dict[str, Any] = {"ok": False, "detail": f"no answer to ARP from 100.64.{number}.1", "state": "FAILED"}
    return GatewayAnswer(egress=by(number), gateway=ip_address(f"100.64.{number}.1"), **known | more)


def sized(number: int, alive: int, full: int, family: Family = V4, **more: Any) -> PathSize:
    return PathSize(by(number, family), 1500, alive=(A, B, C)[:alive], full=(A, B, C)[:full], **more)


# gateway-silent


def test_a_silent_gateway_without_a_target_behind_it_is_a_fault() -> None:
    (finding,) = found("gateway-silent", box_of(world(2), line=LineFacts(gateways=(silent(2),))))

    assert (finding.severity, "100.64.2.1 of wan2" in finding.what) == ("fault", True)
    assert "`ip neighbour show 100.64.2.1 dev wan2`: FAILED" in finding.evidence


@pytest.mark.parametrize(
    "facts",
    [
        LineFacts(gateways=(silent(2, ok=True, detail="100.64.2.1 is at 02:00"),)),
        LineFacts(gateways=(silent(2, state="PERMANENT"),)),
        LineFacts(gateways=(silent(2, state="NOARP"),)),
        LineFacts(gateways=(silent(2),), sizes=(sized(2, alive=1, full=0),)),
    ],
)
def test_a_gateway_that_passes_packets_is_well_whatever_it_answers(facts: LineFacts) -> None:
    assert found("gateway-silent", box_of(world(2), line=facts)) == []


LINKDOWN = "net/ipv4/conf/wan1/ignore_routes_with_linkdown"


def unplugged(observed: Observed, **state: bool) -> Observed:
    return replace(observed, links={**observed.links, "wan1": link(1, **state)})


def test_the_best_default_by_a_link_without_carrier_is_a_warning() -> None:
    box = box_of(unplugged(world(2, [V4]), carrier=False), settings={LINKDOWN: "0"})

    (finding,) = found("gateway-silent", box)

    assert (finding.severity, finding.what) == ("warning", "wan1 has no carrier, and a default route leads by it")


@pytest.mark.parametrize(
    ("observed", "settings"),
    [
        (unplugged(world(2, [V4]), carrier=False), {LINKDOWN: "1"}),
        (unplugged(world(2, [V4]), up=False), {LINKDOWN: "0"}),
        (replace(world(2, [V4]), links={"wan1": link(1), "wan2": link(2, carrier=False)}), {LINKDOWN: "0"}),
    ],
)
def test_a_dead_link_that_no_route_is_chosen_for_is_nothing(observed: Observed, settings: Mapping[str, str]) -> None:
    assert found("gateway-silent", box_of(observed, settings=settings)) == []


def test_an_uplink_of_the_file_that_is_unplugged_is_named_unless_a_daemon_says_so() -> None:
    box = box_of(unplugged(world(2), carrier=False), config=config(2))

    (finding,) = found("gateway-silent", box)

    assert finding.what == "wan1 has no carrier: uplink u1"
    assert found("gateway-silent", replace(box, status=documents.status())) == []


def test_an_uplink_that_is_not_enabled_may_be_unplugged() -> None:
    off = load_text('[uplinks.a]\ninterface = "wan1"\nenabled = false\n[uplinks.b]\ninterface = "wan2"\n')

    assert found("gateway-silent", box_of(unplugged(world(2, [V4]), up=False), config=off)) == []


# captive-portal


def page(number: int, detail: str, *, ok: bool = False, family: Family = V4) -> PageAnswer:
    wrong = not ok and " instead of " in detail
    return PageAnswer(by(number, family), "http://page.example/204", ok, wrong, detail)


PORTAL = "302 instead of 204: a captive portal at login.example"


@pytest.mark.parametrize(
    ("pages", "severity"),
    [
        ((page(1, "204 from 203.0.113.1", ok=True), page(2, PORTAL)), ["fault"]),
        ((page(1, "204 from 203.0.113.1", ok=True), page(2, "403 instead of 204")), ["fault"]),
        ((page(1, PORTAL),), ["warning"]),
        ((page(1, "200 instead of 204: probably a captive portal"),), ["warning"]),
        ((page(1, "403 instead of 204"), page(2, "403 instead of 204")), []),
        ((page(1, "301 instead of 204: redirected within its host"),), []),
        ((page(1, "no answer from 203.0.113.1"), page(2, "204 from 203.0.113.1", ok=True)), []),
        ((page(1, "page.example has no IPv6 address", ok=True, family=V6), page(2, "403 instead of 204")), []),
    ],
)
def test_a_portal_is_what_answers_otherwise_than_by_another_line(
    pages: tuple[PageAnswer, ...], severity: list[str]
) -> None:
    findings = found("captive-portal", box_of(world(2), line=LineFacts(pages=pages)))

    assert [finding.severity for finding in findings] == severity


# mtu-black-hole


def test_a_black_hole_is_named_with_the_size_that_passes() -> None:
    facts = LineFacts(sizes=(sized(1, 3, 3), sized(2, 3, 0, largest=1420)))

    (finding,) = found("mtu-black-hole", box_of(world(2), line=facts))

    assert finding.what == "packets of more than 1420 bytes vanish on wan2"
    assert finding.fix is not None
    assert [step.command for step in finding.fix.steps] == [("ip", "link", "set", "dev", "wan2", "mtu", "1420")]


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((sized(1, 3, 1),), id="one target answers large ones"),
        pytest.param((sized(1, 0, 0),), id="nothing answers"),
        pytest.param((sized(1, 1, 0, largest=1400),), id="a single target may filter them"),
        pytest.param((sized(1, 3, 0, largest=1000),), id="no line is that small"),
        pytest.param((sized(1, 3, 0, reported=True),), id="a router says so"),
        pytest.param((sized(1, 3, 0, largest=0),), id="nothing was measured"),
    ],
)
def test_a_path_that_may_be_well_is_no_black_hole(sizes: tuple[PathSize, ...]) -> None:
    assert found("mtu-black-hole", box_of(world(2), line=LineFacts(sizes=sizes))) == []


def test_a_single_target_counts_when_it_answers_large_packets_by_another_line() -> None:
    facts = LineFacts(sizes=(sized(1, 1, 1), sized(2, 1, 0, largest=900)))

    assert [f.what for f in found("mtu-black-hole", box_of(world(2, [V4]), line=facts))] == [
        "packets of more than 900 bytes vanish on wan2"
    ]


def test_a_size_below_that_of_ipv6_is_not_set_where_it_would_end_ipv6() -> None:
    facts = LineFacts(sizes=(sized(1, 1, 1), sized(2, 1, 0, largest=900)))

    (finding,) = found("mtu-black-hole", box_of(world(2), line=facts))

    assert finding.fix is not None
    assert finding.fix.steps == ()


def default_by(device: str, mtu: int) -> TableRoute:
    hops = (Hop(device, "100.64.2.1", 1, alive=True),)
    return TableRoute(V4, "main", ip_network("0.0.0.0/0"), "unicast", "static", "", 0, "", 0, hops, mtu)


def clamp(size: int) -> Firewall:
    rule = f"-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {size}"
    return Firewall(iptables.parse(f"*mangle\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n", V4, "iptables"))


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({"routes": (default_by("wan2", 1420),)}, 0),
        ({"routes": (default_by("wan2", 1480),)}, 1),
        ({"routes": (default_by("wan2", 1420), default_by("wan2", 0))}, 1),
        ({"firewall": clamp(1380)}, 0),
        ({"firewall": clamp(1440)}, 1),
    ],
)
def test_a_black_hole_that_somebody_has_seen_to_is_known(more: Mapping[str, Any], count: int) -> None:
    facts = LineFacts(sizes=(sized(1, 3, 3), sized(2, 3, 0, largest=1420)))

    assert len(found("mtu-black-hole", box_of(world(2), line=facts, **more))) == count


# dns-of-other-provider

RESOLVER = Resolver(ip_address("198.51.100.53"), "wan2", "the lease of dhclient")


def asked(number: int, *, ok: bool, leaves: str = "wan1", **more: Any) -> ResolverAnswer:
    return ResolverAnswer(by(number, **more), RESOLVER, ok, "answered" if ok else "no answer", leaves)


def dns(*answers: ResolverAnswer, **more: Any) -> list[Finding]:
    return found("dns-of-other-provider", box_of(world(2), line=LineFacts(lookups=answers), **more))


def test_a_resolver_that_answers_by_its_own_line_only_gets_a_route() -> None:
    (finding,) = dns(asked(1, ok=False), asked(2, ok=True))

    assert finding.fix is not None
    (step,) = finding.fix.steps
    assert step.command == ("ip", "route", "add", "198.51.100.53", "via", "100.64.2.1", "dev", "wan2")


def test_a_resolver_is_well_where_it_answers_or_where_nobody_asks_it() -> None:
    assert dns(asked(1, ok=True), asked(2, ok=True)) == []
    assert dns(asked(1, ok=False), asked(2, ok=False)) == []
    assert dns(asked(1, ok=False, leaves="wan2"), asked(2, ok=True, leaves="wan2")) == []
    assert dns(asked(1, ok=False, mark=1), asked(2, ok=True)) == []


def running(state: str = "up", share: float = 0.5, rules: str = "") -> dict[str, Any]:
    own = {n: documents.uplink(f"u{n}", state, share, interface=f"wan{n}", mark=n << 8) for n in (1, 2)}
    text = "".join(f'[uplinks.u{n}]\ninterface = "wan{n}"\n' for n in own)
    return {"status": documents.status(*own.values()), "config": load_text(text + rules), "config_path": "/etc/p.toml"}


def ours(number: int, *, ok: bool) -> ResolverAnswer:
    return asked(number, ok=ok, leaves=f"wan{number}", name=f"u{number}", mark=number << 8, ours=True)


def test_with_polywan_the_rule_goes_into_the_file() -> None:
    (finding,) = dns(ours(1, ok=False), ours(2, ok=True), **running())

    assert finding.fix is not None
    rule, reload = finding.fix.steps
    assert (rule.path, rule.append, reload.command) == ("/etc/p.toml", True, ("polywan", "reload"))
    added: Config = load_text('[uplinks.u2]\ninterface = "wan2"\n' + rule.text)
    assert (str(added.rules[0].to[0]), added.rules[0].uplink) == ("198.51.100.53/32", "u2")


@pytest.mark.parametrize(
    ("more", "count"),
    [
        (running(state="down"), 0),
        (running(share=0.0), 0),
        (running(rules='[[rules]]\nto = "198.51.100.0/24"\nuplink = "u2"\n'), 0),
        (running(rules='[[rules]]\nprotocol = "udp"\nport = 53\nuplink = "u2"\n'), 0),
        (running(rules='[[rules]]\nuser = "root"\nuplink = "u2"\n'), 0),
        (running(rules='[[rules]]\nfrom = "192.168.1.0/24"\nuplink = "u2"\n'), 1),
        (running(rules='[[rules]]\nprotocol = "tcp"\nport = 443\nuplink = "u2"\n'), 1),
        (running(rules='[[rules]]\nto = "192.0.2.0/24"\nuplink = "u2"\n'), 1),
    ],
)
def test_with_polywan_rules_and_states_decide_who_is_asked(more: dict[str, Any], count: int) -> None:
    assert len(dns(ours(1, ok=False), ours(2, ok=True), **more)) == count


def test_resolvers_are_read_from_the_texts_of_files() -> None:
    assert list(
        map(str, nameservers("# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a\nnameserver\n"))
    ) == [
        "192.0.2.1",
        "fe80::1",
    ]
    text = "# private\nDNS=192.0.2.1 2001:db8::1#name words\nNTP=192.0.2.9\n"
    assert list(map(str, value_of(text, "DNS"))) == ["192.0.2.1", "2001:db8::1"]


def test_a_resolver_that_two_providers_have_named_belongs_to_none() -> None:
    public = [Resolver(A, "wan1", "x"), Resolver(A, "wan2", "y"), Resolver(B, "wan2", "y"), Resolver(C, "wan2", "y")]

    assert owned([A, B, ip_address("fe80::1")], public) == (Resolver(B, "wan2", "y"),)


@pytest.mark.parametrize(
    ("resolv", "used"),
    [
        ("nameserver 192.0.2.1\n", True),
        ("nameserver 127.0.0.53\n", False),
        ("nameserver 127.0.0.1\n", True),
        ("", False),
    ],
)
def test_systemd_resolved_asks_each_server_by_its_link(tmp_path: Path, resolv: str, used: bool) -> None:
    for name, text in (
        ("etc/resolv.conf", resolv),
        ("run/dnsmasq/resolv.conf", "nameserver 192.0.2.1\n"),
        ("run/resolvconf/interface/wan2.dhclient", "nameserver 192.0.2.1\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    seen = resolvers.read(world(2), {"wan1", "wan2"}, tmp_path)

    assert seen == (
        (Resolver(ip_address("192.0.2.1"), "wan2", "/run/resolvconf/interface/wan2.dhclient"),) if used else ()
    )


# asymmetric-ipv6


def even(observed: Observed) -> Observed:
    """Both lines are in use: their defaults have one metric."""
    return replace(observed, defaults=tuple(replace(d, metric=100) for d in observed.defaults))


def routed(box: Box, leads: Mapping[str, str]) -> Box:
    def answer(query: RouteQuery) -> RouteAnswer:
        source = next(a.link for a in box.observed.addresses if a.ip.ip == query.source)
        return RouteAnswer(link=leads[source], via=None, source=None, table=TABLE_MAIN, kind="unicast")

    return replace(box, answers={query: answer(query) for query in asymmetric_ipv6.questions(box)})


def test_an_address_whose_packets_leave_by_the_other_line_is_named_with_a_table_of_its_own() -> None:
    box = routed(box_of(even(world(2))), {"wan1": "wan2", "wan2": "wan1"})

    one, two = found("asymmetric-ipv6", box)

    assert one.what == "packets from 2001:db8:64:1::2, an IPv6 address of wan1, leave by wan2"
    assert one.fix is not None
    assert two.fix is not None
    assert [step.command[-1] for step in (*one.fix.steps, *two.fix.steps)] == ["1000", "1000", "1001", "1001"]


def masquerade() -> Firewall:
    text = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan2 -j MASQUERADE\nCOMMIT\n"
    return Firewall(iptables.parse(text, V6, "iptables"))


CROSSED = {"wan1": "wan2", "wan2": "wan1"}


@pytest.mark.parametrize(
    ("box", "leads"),
    [
        pytest.param(box_of(even(world(2))), {"wan1": "wan1", "wan2": "wan2"}, id="each by its own"),
        pytest.param(box_of(world(2)), CROSSED, id="one stands by"),
        pytest.param(box_of(even(world(2))), {"wan1": "lan0", "wan2": "lan0"}, id="not to the Internet"),
        pytest.param(box_of(even(world(2)), firewall=masquerade()), CROSSED, id="translated"),
        pytest.param(box_of(even(world(2)), status=documents.status()), CROSSED, id="polywan"),
    ],
)
def test_ipv6_that_is_symmetric_translated_or_standing_by_is_well(box: Box, leads: Mapping[str, str]) -> None:
    assert found("asymmetric-ipv6", routed(box, leads)) == []


def test_lines_of_one_prefix_and_local_addresses_may_cross() -> None:
    observed = even(world(2))
    same = (Address("wan1", ip_interface("2001:db8:1::1/64")), Address("wan2", ip_interface("2001:db8:1::2/64")))
    local = (Address("wan1", ip_interface("fd00:1::1/64")), Address("wan2", ip_interface("fd00:2::1/64")))
    for addresses in (same, local):
        box = routed(box_of(replace(observed, addresses=addresses)), CROSSED)
        assert found("asymmetric-ipv6", box) == []


# same-network-twins


def twins(**settings: str) -> Box:
    observed = even(world(2, [V4]))
    addresses = tuple(Address(f"wan{n}", ip_interface(f"192.168.1.{n + 1}/24")) for n in (1, 2))
    known = {"net/ipv4/conf/all/arp_ignore": "0", "net/ipv4/conf/all/arp_announce": "0"}
    known |= {f"net/ipv4/conf/all/{name}": value for name, value in settings.items()}
    return box_of(replace(observed, addresses=addresses), settings=known)


def routers(*macs: str) -> LineFacts:
    gateway = ip_address("192.168.1.1")
    answers = (GatewayAnswer(by(n), gateway, ok=True, detail="", mac=mac) for n, mac in enumerate(macs, start=1))
    return LineFacts(gateways=tuple(answers))


def test_twins_on_one_segment_are_a_warning_and_on_two_a_note() -> None:
    one = found("same-network-twins", replace(twins(), line=routers("02:00:01", "02:00:01")))
    two = found("same-network-twins", replace(twins(), line=routers("02:00:01", "02:00:02")))

    assert [finding.severity for finding in (*one, *two)] == ["warning", "note"]


def test_twins_that_are_set_up_or_not_known_to_be_any_are_well() -> None:
    same = routers("02:00:01", "02:00:01")
    assert found("same-network-twins", replace(twins(arp_ignore="1", arp_announce="2"), line=same)) == []
    assert found("same-network-twins", twins()) == []
    spare = replace(twins(), observed=replace(twins().observed, defaults=world(2, [V4]).defaults), line=same)
    assert found("same-network-twins", spare) == []
    assert found("same-network-twins", replace(twins(), line=same, status=documents.status())) == []
    assert found("same-network-twins", box_of(world(2), line=same)) == []


# cgnat


def forwarding(rule: str) -> Firewall:
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"
    return Firewall(iptables.parse(text, V4, "iptables"))


TO_HOST = "-p tcp -m tcp --dport 80 -j DNAT --to-destination 192.168.15.10:80"


@pytest.mark.parametrize(
    ("rule", "devices"),
    [
        (f"-i wan1 {TO_HOST}", ["wan1"]),
        (f"-i wan+ {TO_HOST}", ["wan1", "wan2"]),
        (f"-d 100.64.2.2/32 {TO_HOST}", ["wan2"]),
        (f"-i lan0 {TO_HOST}", []),
        (f"! -i docker0 {TO_HOST}", []),
        (TO_HOST, []),
        ("-i wan1 -p tcp -j REDIRECT --to-ports 3128", []),
    ],
)
def test_only_a_port_that_is_forwarded_from_the_line_is_worth_a_note(rule: str, devices: list[str]) -> None:
    findings = found("cgnat", box_of(world(2), firewall=forwarding(rule)))

    assert [finding.what.split()[4].rstrip(",") for finding in findings] == devices
    assert {finding.severity for finding in findings} <= {"note"}


def test_a_line_with_a_public_address_may_forward_ports() -> None:
    public = replace(world(1, [V4]), addresses=(Address("wan1", ip_interface("203.0.113.9/24")),))

    assert found("cgnat", box_of(public, firewall=forwarding(f"-i wan1 {TO_HOST}"))) == []


# link-errors


def counted(errors: int, received: int = 10_000, **more: int) -> PortCounters:
    return PortCounters(received, 10_000, {"rx errors": errors, **more})


def errors(now: PortCounters, later: PortCounters | None = None) -> list[str]:
    facts = LineFacts(counters={"wan1": now, "lan0": now}, later={"wan1": later} if later else {})
    return [finding.severity for finding in found("link-errors", box_of(world(2), line=facts))]


def test_errors_are_a_warning_while_they_grow_and_a_note_later() -> None:
    assert errors(counted(100), counted(101)) == ["warning"]
    assert errors(counted(100), counted(100)) == ["note"]
    assert errors(counted(100)) == ["note"]


def test_few_errors_are_none() -> None:
    assert errors(counted(40, 100)) == []
    assert errors(counted(100, 10_000_000)) == []


def test_carrier_errors_and_collisions_count_for_what_is_sent() -> None:
    assert errors(PortCounters(0, 10_000, {"tx carrier_errors": 30, "tx collisions": 30})) == ["note"]


GIGABIT = frozenset({10, 100, 1000})
FULL = frozenset({(speed, False) for speed in GIGABIT})


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (PortMode(1000, half=False, offers=GIGABIT, partner=FULL), None),
        (
            PortMode(100, half=False, offers=GIGABIT, partner=FULL),
            "runs at 100 Mbit/s, although both ends offered 1000",
        ),
        (PortMode(100, half=False, offers=frozenset({10, 100})), None),
        (PortMode(10, half=False), None),
        (PortMode(0, half=False, offers=GIGABIT), None),
        (PortMode(100, half=True), "runs half duplex at 100 Mbit/s"),
        (PortMode(100, half=True, partner=FULL), "runs half duplex at 100 Mbit/s"),
        (PortMode(10, half=True, partner=frozenset({(10, True)})), None),
    ],
)
def test_a_port_is_held_against_what_both_ends_offered(mode: PortMode, words: str | None) -> None:
    findings = found("link-errors", box_of(world(1), line=LineFacts(modes={"wan1": mode})))

    assert [finding.what for finding in findings] == ([f"wan1 {words}"] if words else [])


def test_what_a_driver_says_is_understood() -> None:
    def said(speed: int, duplex: int, ours: int = 0, theirs: int = 0) -> PortMode:
        return port.mode(port.COMMAND.pack(1, 0, ours, speed & 0xFFFF, duplex, *(0,) * 7, speed >> 16, 0, 0, theirs))

    assert said(100, 1, 0x2F, 0x2F) == PortMode(100, False, GIGABIT, frozenset({*FULL, (10, True), (100, True)}))
    assert said(10, 0) == PortMode(10, True)
    assert said(0, 0) == said(0xFFFF, 0) == said(0xFFFFFFFF, 255) == PortMode(0, False)
    assert said(100_000, 1).speed == 100_000
    assert struct.calcsize(port.COMMAND.format) == 44


def test_counters_are_read_and_nonsense_is_none() -> None:
    stats = {"rx": {"packets": 7, "errors": 1, "crc_errors": 1}, "tx": {"packets": 8, "collisions": 2}}
    listing = [
        {"ifname": "a", "stats64": stats},
        {"ifname": "b"},
        5,
        {"stats64": stats},
        {"ifname": "c", "stats64": {}},
    ]

    read = dict(port.counters(listing))

    assert (read["a"].received, read["a"].sent, read["a"].rx_errors, read["a"].tx_errors) == (7, 8, 1, 2)
    assert set(read) == {"a", "c"}
    assert list(port.counters("nothing")) == []


def test_the_port_below_a_vlan_and_those_of_a_bond_are_looked_at() -> None:
    observed = world(1, [V4])
    links = {
        "wan1": replace(link(1), kind="vlan", parent=50),
        "bond0": replace(link(40), index=50, name="bond0", kind="bond"),
        "eth0": replace(link(41), name="eth0", master=50, member_of="bond"),
    }
    facts = LineFacts(counters={"eth0": counted(100), "eth9": counted(100)})

    box = box_of(replace(observed, links=links), line=facts)

    assert [finding.what.split()[0] for finding in found("link-errors", box)] == ["eth0"]


# carrier-flaps


def event(uplink: str = "u1", state: str = "down", before: str | None = "up", reason: str = "no carrier") -> LinkEvent:
    known: dict[str, Any] = dict.fromkeys(LinkEvent.__fields__)
    return LinkEvent(
        **known
        | {"id": 1, "time": "2026-11-30T06:00:00Z", "uplink": uplink, "interface": "wan1", "event": "state"}
        | {"state": state, "previous_state": before, "reason": reason, "lasted_s": 300.0}
    )


@pytest.mark.parametrize(
    ("events", "count"),
    [
        ([event()] * 4, 1),
        ([event()] * 3, 0),
        ([event(state="missing", reason="link ppp0 does not exist")] * 4, 1),
        ([event(before="degraded")] * 4, 1),
        ([event(reason="no target answers")] * 9, 0),
        ([event(before="down", state="up")] * 9, 0),
        ([event(before=None)] * 9, 0),
        ([event("u1")] * 3 + [event("u2")] * 3, 0),
    ],
)
def test_a_link_flaps_when_it_was_lost_four_times_a_day(events: list[LinkEvent], count: int) -> None:
    assert len(found("carrier-flaps", Box(events=tuple(events)))) == count


def test_a_healthy_machine_has_no_finding_on_its_lines() -> None:
    facts = LineFacts(sizes=(sized(1, 3, 3), sized(2, 3, 3)), counters={"wan1": counted(0)})
    box = box_of(world(2), line=facts)

    assert [finding for check in LINE for finding in check.look(box)] == []
