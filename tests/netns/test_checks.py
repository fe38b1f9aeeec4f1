"""Checks of layers against real gateways, resolvers, pages and paths, good ones and bad ones."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.net import FAMILIES, Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from polywan.probe.neighbour import NOBODY
from polywan.probe.prober import NetProber
from support.dns_server import DnsServer, Zone
from support.netns import BuildLab
from support.page_server import PageServer
from support.probe_orders import check_order, inspect, reported, take_checks

V4, V6 = Family.V4, Family.V6
BOTH = pytest.mark.parametrize("family", FAMILIES)
NAME = "page.example"
PAGE = {V4: str(SERVERS[V4][0]), V6: str(SERVERS[V6][0])}
NAMES = {NAME: Zone([PAGE[V4], PAGE[V6]]), "www.example": Zone(alias=NAME), "empty.example": Zone()}
STRAY = """
table inet watch {
  counter stray { }
  counter sent { }
  counter received { }
  chain out {
    type filter hook output priority 0;
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
    oifname "wan1" counter name sent
    meta mark 0x100 oifname "wan1" accept
    meta mark 0x200 oifname "wan2" accept
    # Of a program only: the kernel itself answers what comes late for a socket that is closed.
    oifname != "lo" meta skuid >= 0 counter name stray
  }
  chain in {
    type filter hook input priority 0;
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
    iifname "wan1" counter name received
  }
}"""


@dataclass(frozen=True)
class Site:
    """A lab whose router routes the marks of wan1 and wan2, as the daemon would."""

    lab: Lab

    def check(self, *orders: CheckOrder) -> CheckResult:
        """Carry out checks at the same time and return the last one's result."""

        async def main() -> list[CheckResult]:
            return await inspect(NetProber(), *orders)

        with self.lab.router.entered():
            found = asyncio.run(main())
        assert len(found) == len(orders)
        return found[-1]

    def bytes(self, counter: str) -> int:
        listed = self.lab.router.run(["nft", "-j", "list", "counter", "inet", "watch", counter]).stdout
        return int(json.loads(listed)["nftables"][1]["counter"]["bytes"])


@pytest.fixture
def site(lab_of: BuildLab) -> Site:
    lab = lab_of(2)
    for uplink in lab.topology.uplinks:
        number = uplink.number
        for family, address in uplink.addresses.items():
            lab.router.run(
                ["ip", f"-{family:d}", "rule", "add", "fwmark", f"{number << 8:#x}/0x3f00", "lookup", str(number)]
            )
            lab.router.ip([f"route add default via {address.gateway} dev {uplink.interface} table {number}"])
    lab.router.nft(STRAY)
    return Site(lab)


def by(uplink: int, layer: Layer, family: Family, **what: Any) -> CheckOrder:
    return check_order(layer, family, **{"interface": f"wan{uplink}", "mark": uplink << 8, "timeout": 2.0, **what})


def gateway(site: Site, uplink: int, family: Family, **what: Any) -> CheckOrder:
    address = site.lab.topology.uplink(uplink).addresses[family].gateway
    return by(uplink, Layer.GATEWAY, family, **{"gateway": str(address), **what})


def lose_the_first(where: Namespace, table: str, match: str, *, size: int) -> None:
    """Drop one packet of that many bytes: nft's quota still holds for it and no longer for the next."""
    where.nft(
        f"table {table} lossy {{ chain in {{ type filter hook input priority 0;"
        f" {match} quota until {size * 3 // 2} bytes drop; }}; }}"
    )


class Twisted(DnsServer):
    """Answers, with a change made to each answer."""

    def __init__(self, sock: socket.socket, change: Callable[[dns.message.Message], object]) -> None:
        super().__init__(sock, NAMES)
        self.change = change

    def _serve(self) -> None:
        # A test is over with the first answer; this server may still be sending another.
        with suppress(OSError):
            super()._serve()

    def _answer(self, query: dns.message.Message) -> bytes:
        reply = dns.message.from_wire(super()._answer(query))
        self.change(reply)
        return reply.to_wire()


def resolver(
    site: Site, family: Family, which: int = 0, *, change: Callable[[dns.message.Message], object] = str
) -> Twisted:
    sock = site.lab.server.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM)
    sock.bind((str(SERVERS[family][which]), 53))
    return Twisted(sock, change)


def ask(family: Family, uplink: int = 1, servers: int = 1, **what: Any) -> CheckOrder:
    addresses = tuple(map(str, SERVERS[family][:servers]))
    return by(uplink, Layer.DNS, family, **{"servers": addresses, "name": NAME, **what})


def serve(site: Site, family: Family, answer: bytes | None, port: int = 80) -> PageServer:
    sock = site.lab.server.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((PAGE[family], port))
    return PageServer(sock, answer)


def page(family: Family, uplink: int = 1, url: str = "", servers: tuple[str, ...] = (), **what: Any) -> CheckOrder:
    host = PAGE[V4] if family is V4 else f"[{PAGE[V6]}]"
    return by(uplink, Layer.HTTP, family, servers=servers, url=url or f"http://{host}/204?x=1", **what)


def full_size(family: Family, uplink: int = 1, size: int = 1500, **what: Any) -> CheckOrder:
    return by(uplink, Layer.LARGE, family, servers=(PAGE[family],), size=size, **what)


NO_CONTENT = b"HTTP/1.1 204 No Content\r\nServer: lab\r\n\r\n"


# The gateway.


@BOTH
def test_a_gateway_that_answers_is_well(site: Site, family: Family) -> None:
    found = site.check(gateway(site, 1, family))
    address = site.lab.topology.uplink(1).addresses[family].gateway
    assert found.ok, found.detail
    assert found.detail.startswith(f"{address} is at ")
    assert found.sent > 0
    assert found.received > 0


@pytest.mark.parametrize(
    ("family", "rule", "detail"),
    [
        (V4, "table arp mute { chain in { type filter hook input priority 0; drop; }; }", "no answer to ARP from {}"),
        (
            V6,
            "table ip6 mute { chain in { type filter hook input priority 0; icmpv6 type nd-neighbor-solicit drop; }; }",
            "no answer to neighbour discovery from {}",
        ),
    ],
)
def test_a_gateway_that_is_silent_is_told(site: Site, family: Family, rule: str, detail: str) -> None:
    site.lab.provider(1).nft(rule)
    found = site.check(gateway(site, 1, family, timeout=0.4))
    address = site.lab.topology.uplink(1).addresses[family].gateway
    assert (found.ok, found.rtt, found.detail) == (False, None, detail.format(address))
    assert site.check(gateway(site, 2, family)).ok


@BOTH
def test_a_gateway_is_asked_again_when_the_first_question_is_lost(site: Site, family: Family) -> None:
    if family is V4:
        lose_the_first(site.lab.provider(1), "arp", "arp operation request", size=28)
    else:
        lose_the_first(site.lab.provider(1), "ip6", "icmpv6 type nd-neighbor-solicit", size=72)
    found = site.check(gateway(site, 1, family, timeout=1.2))
    assert found.ok, found.detail
    assert found.sent == 2 * found.received


def test_a_gateway_with_a_link_local_address_is_asked(site: Site) -> None:
    assert site.check(gateway(site, 1, V6, gateway="fe80::1")).ok


@BOTH
def test_a_link_without_neighbours_is_well(lab_of: BuildLab, family: Family) -> None:
    alone = Site(lab_of(1, point_to_point=[1]))
    without, with_one = by(1, Layer.GATEWAY, family), gateway(alone, 1, family)
    assert [(found.ok, found.detail) for found in map(alone.check, (without, with_one))] == [(True, NOBODY)] * 2


@BOTH
def test_a_gateway_behind_a_cut_cable_does_not_answer(site: Site, family: Family) -> None:
    site.lab.cut(1)
    assert not site.check(gateway(site, 1, family, timeout=0.3)).ok


@pytest.mark.parametrize(("hops", "ok"), [(255, True), (254, False)])
def test_an_advertisement_that_crossed_a_router_does_not_count(site: Site, hops: int, ok: bool) -> None:
    target = IPv6Address("2001:db8:64:1::77")
    provider = site.lab.provider(1)

    async def main() -> CheckResult:
        loop = asyncio.get_running_loop()
        with provider.entered():
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
            raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            there = (str(IPv6Address("fe80::2:1")), 0, 0, socket.if_nametoindex("wan"))
        with tap, raw:
            tap.settimeout(0)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            with site.lab.router.entered():
                prober = NetProber()
                prober.check(gateway(site, 1, V6, gateway=str(target), timeout=0.5))
                # Its sockets are made in this namespace before the loop does anything else.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            while (await loop.sock_recv(tap, 256))[40:41] != b"\x87":
                pass
            raw.sendto(bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + target.packed, there)
            (found,) = await take_checks(prober, 1)
            prober.close()
            return found

    assert asyncio.run(main()).ok == ok


# Resolvers.


@BOTH
def test_a_resolver_that_answers_is_well(site: Site, family: Family) -> None:
    with resolver(site, family) as server:
        found = site.check(ask(family))
    assert (found.ok, found.detail) == (True, f"{SERVERS[family][0]} answered")
    assert server.asked == [NAME]


@BOTH
def test_that_there_is_no_such_name_is_an_answer(site: Site, family: Family) -> None:
    with resolver(site, family):
        found = site.check(ask(family, name="absent.example"))
    assert (found.ok, found.detail) == (True, f"{SERVERS[family][0]} answered that there is no such name")


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTIMP"])
def test_a_resolver_that_cannot_answer_is_told_at_once(site: Site, code: str) -> None:
    with resolver(site, V4, change=lambda reply: reply.set_rcode(dns.rcode.from_text(code))):
        found = site.check(ask(V4, timeout=30.0))
    assert (found.ok, found.detail) == (False, f"{SERVERS[V4][0]}: {code}")


@BOTH
def test_resolvers_that_do_not_answer_are_named(site: Site, family: Family) -> None:
    with resolver(site, family) as server:
        server.silent = True
        found = site.check(ask(family, servers=2, timeout=0.4))
    one, two = SERVERS[family][:2]
    assert (found.ok, found.detail) == (False, f"{one}: no answer; {two}: Connection refused")


def test_one_resolver_that_answers_is_enough(site: Site) -> None:
    refuse = lambda reply: reply.set_rcode(dns.rcode.REFUSED)  # noqa: E731
    with resolver(site, V4, 0, change=refuse), resolver(site, V4, 2):
        found = site.check(ask(V4, servers=3))
    assert (found.ok, found.detail) == (True, f"{SERVERS[V4][2]} answered")


def test_a_lost_query_is_sent_again(site: Site) -> None:
    lose_the_first(site.lab.server, "ip", "udp dport 53", size=58)
    with resolver(site, V4) as server:
        found = site.check(ask(V4, timeout=1.2))
    assert found.ok, found.detail
    assert (found.sent, server.asked) == (2 * 58, [NAME])


def no_response(reply: dns.message.Message) -> None:
    reply.flags &= ~dns.flags.QR


def other_question(reply: dns.message.Message) -> None:
    reply.question = dns.message.make_query("other.example", "A").question


def other_id(reply: dns.message.Message) -> None:
    reply.id ^= 1


@pytest.mark.parametrize("change", [no_response, other_question, other_id])
def test_an_answer_to_something_else_does_not_count(
    site: Site, change: Callable[[dns.message.Message], object]
) -> None:
    with resolver(site, V4, change=change):
        found = site.check(ask(V4, timeout=0.4))
    assert (found.ok, found.detail) == (False, f"{SERVERS[V4][0]}: no answer")


def test_a_resolver_of_the_other_family_is_not_asked(site: Site) -> None:
    found = site.check(by(1, Layer.DNS, V6, servers=(PAGE[V4],), name=NAME))
    assert (found.ok, found.detail, found.sent) == (True, "no IPv6 resolver to query", 0)


# Pages.


@BOTH
def test_a_page_with_the_right_status_is_well(site: Site, family: Family) -> None:
    with serve(site, family, NO_CONTENT) as server:
        found = site.check(page(family))
    assert (found.ok, found.detail) == (True, f"204 from {PAGE[family]}")
    assert server.requests[0].startswith(b"GET /204?x=1 HTTP/1.1\r\n")


@BOTH
def test_the_host_of_a_page_is_asked_for_by_the_same_uplink(site: Site, family: Family) -> None:
    with resolver(site, family) as names, serve(site, family, NO_CONTENT, 8080) as server:
        found = site.check(page(family, url="http://www.example:8080", servers=(PAGE[family],)))
    assert found.ok, found.detail
    assert names.asked == ["www.example"]
    assert b"\r\nhost: www.example:8080\r\n" in server.requests[0].lower()


@BOTH
def test_a_captive_portal_is_named(site: Site, family: Family) -> None:
    portal = b"HTTP/1.1 302 Found\r\nLocation: https://portal.example/login?from=x\r\nContent-Length: 0\r\n\r\n"
    with serve(site, family, portal) as server:
        found = site.check(page(family))
    assert (found.ok, found.detail) == (False, "302 instead of 204: a captive portal at portal.example")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "the answer does not end"),
    ],
)
def test_what_is_no_answer_of_http_is_told(site: Site, answer: bytes, detail: str) -> None:
    with serve(site, V4, answer):
        found = site.check(page(V4))
    assert not found.ok
    assert found.detail.startswith(f"{PAGE[V4]}: {detail}")


def test_a_page_that_never_comes_is_told_at_the_timeout(site: Site) -> None:
    with serve(site, V4, None):
        found = site.check(page(V4, timeout=0.4))
    assert (found.ok, found.detail) == (False, f"no answer from {PAGE[V4]}")


@BOTH
def test_a_closed_port_is_told(site: Site, family: Family) -> None:
    assert site.check(page(family)).detail == f"{PAGE[family]}: Connection refused"


def test_a_second_address_of_the_page_is_tried(site: Site) -> None:
    with resolver(site, V4) as names, serve(site, V4, NO_CONTENT):
        names.names["two.example"] = Zone([str(SERVERS[V4][1]), PAGE[V4]])
        found = site.check(page(V4, url="http://two.example/", servers=(PAGE[V4],)))
    assert (found.ok, found.detail) == (True, f"204 from {PAGE[V4]}")


def test_a_name_that_does_not_exist_is_told(site: Site) -> None:
    with resolver(site, V4):
        found = site.check(page(V4, url="http://absent.example/", servers=(PAGE[V4],)))
    assert (found.ok, found.detail) == (False, f"absent.example: {PAGE[V4]} says that there is no such name")


def cut_short(reply: dns.message.Message) -> None:
    """What a server says whose answer has no room in a datagram."""
    reply.answer.clear()
    reply.flags |= dns.flags.TC


@contextmanager
def resolver_by_tcp(site: Site, family: Family, answers: Twisted) -> Iterator[None]:
    """Answer one question by TCP as well."""
    with site.lab.server.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(SERVERS[family][0]), 53))
        listener.listen()
        listener.settimeout(5)

        def serve_one() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as stream:
                wire = DnsServer._answer(answers, dns.message.from_wire(stream.read(int.from_bytes(stream.read(2)))))
                stream.write(len(wire).to_bytes(2) + wire)

        thread = threading.Thread(target=serve_one)
        thread.start()
        yield
        thread.join(5)


@BOTH
def test_a_truncated_answer_is_asked_for_by_tcp_on_the_same_uplink(site: Site, family: Family) -> None:
    with (
        resolver(site, family, change=cut_short) as names,
        resolver_by_tcp(site, family, names),
        serve(site, family, NO_CONTENT),
    ):
        found = site.check(page(family, url="http://www.example/", servers=(PAGE[family],)))
    assert (found.ok, found.detail) == (True, f"204 from {PAGE[family]}")
    assert site.bytes("stray") == 0


@BOTH
def test_a_truncated_answer_never_means_that_there_is_no_address(site: Site, family: Family) -> None:
    with resolver(site, family, change=cut_short):
        found = site.check(page(family, url="http://www.example/", servers=(PAGE[family],)))
    assert not found.ok
    assert found.detail == (
        f"www.example: {PAGE[family]} truncated its answer, and gave none over TCP: Connection refused"
    )


@BOTH
def test_a_resolver_that_answers_with_a_part_works(site: Site, family: Family) -> None:
    with resolver(site, family, change=cut_short):
        found = site.check(ask(family))
    assert found.ok


@pytest.mark.parametrize(
    ("url", "servers", "detail"),
    [
        (f"http://{PAGE[V4]}/", (), f"{PAGE[V4]} has no IPv6 address"),
        ("http://empty.example/", (PAGE[V6],), "empty.example has no IPv6 address"),
        ("http://page.example/", (PAGE[V4],), "no IPv6 resolver to query for page.example"),
    ],
)
def test_a_page_without_an_address_in_the_family_says_nothing_against_it(
    site: Site, url: str, servers: tuple[str, ...], detail: str
) -> None:
    with resolver(site, V6):
        found = site.check(page(V6, url=url, servers=servers))
    assert (found.ok, found.detail) == (True, detail)


# Packets of full size.


@BOTH
def test_a_packet_of_full_size_that_comes_back_is_well(site: Site, family: Family) -> None:
    found = site.check(full_size(family))
    assert (found.ok, found.detail) == (True, f"1500 bytes to {PAGE[family]} and back")
    assert (found.sent, found.received) == (1500, 1500)


@BOTH
def test_a_path_that_says_its_size_is_quoted(site: Site, family: Family) -> None:
    site.lab.provider(1).ip(["link set core mtu 1400"])
    found = site.check(full_size(family))
    assert (found.ok, found.detail) == (False, "1500 bytes: the path allows 1400")


@BOTH
def test_a_path_that_swallows_large_packets_is_told(site: Site, family: Family) -> None:
    provider = site.lab.provider(1)
    provider.ip(["link set core mtu 1400"])
    provider.nft(
        "table inet hole { chain out { type filter hook output priority 0;"
        " icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; }; }"
    )
    found = site.check(full_size(family, timeout=0.4))
    assert (found.ok, found.detail) == (False, "1500 bytes: no answer")
    assert site.check(full_size(family, size=1400)).ok


@BOTH
def test_what_the_kernel_has_learned_of_a_path_does_not_keep_large_packets_back(site: Site, family: Family) -> None:
    provider = site.lab.provider(1)
    provider.ip(["link set core mtu 1400"])
    site.check(full_size(family))
    provider.ip(["link set core mtu 1500"])
    assert site.check(full_size(family)).ok


@BOTH
def test_a_size_above_the_interfaces_own_is_told(site: Site, family: Family) -> None:
    found = site.check(full_size(family, size=1501))
    assert (found.ok, found.detail) == (False, "1501 bytes: too large for the interface")


@pytest.mark.parametrize("size", [0, 27, 70_000])
def test_a_size_that_no_packet_has_is_a_result(site: Site, size: int) -> None:
    found = site.check(full_size(V4, size=size))
    assert (found.ok, found.detail) == (False, f"{size} bytes: not a possible packet size")


# All of them.


@contextmanager
def everything_answers(site: Site, family: Family) -> Iterator[Mapping[Layer, Callable[[int], CheckOrder]]]:
    """Serve all layers, and say how to check each by an uplink."""
    orders: dict[Layer, Callable[[int], CheckOrder]] = {
        Layer.GATEWAY: lambda uplink: gateway(site, uplink, family, timeout=0.4),
        Layer.DNS: lambda uplink: ask(family, uplink, timeout=0.4),
        Layer.HTTP: lambda uplink: page(family, uplink, url=f"http://{NAME}/", servers=(PAGE[family],), timeout=0.4),
        Layer.LARGE: lambda uplink: full_size(family, uplink, timeout=0.4),
    }
    with resolver(site, family), serve(site, family, NO_CONTENT):
        yield orders


@BOTH
def test_a_check_of_a_dead_uplink_is_not_answered_by_another(site: Site, family: Family) -> None:
    with everything_answers(site, family) as orders:
        site.lab.cut(2)
        wells = {(uplink, layer): site.check(make(uplink)).ok for uplink in (1, 2) for layer, make in orders.items()}
    assert wells == {(uplink, layer): uplink == 1 for uplink in (1, 2) for layer in orders}


@BOTH
def test_a_hole_beyond_the_gateway_leaves_the_gateway_well(site: Site, family: Family) -> None:
    with everything_answers(site, family) as orders:
        site.lab.blackhole(1)
        assert {layer: site.check(make(1)).ok for layer, make in orders.items()} == {
            layer: layer is Layer.GATEWAY for layer in orders
        }


@BOTH
def test_no_packet_of_a_check_leaves_without_its_mark(site: Site, family: Family) -> None:
    with everything_answers(site, family) as orders:
        assert all(site.check(make(uplink)).ok for uplink in (1, 2) for make in orders.values())
    assert site.lab.router.counters("inet watch")["stray"] == 0


@BOTH
@pytest.mark.parametrize("layer", [Layer.DNS, Layer.HTTP, Layer.LARGE])
def test_the_bytes_of_a_check_are_those_that_the_kernel_counts(site: Site, family: Family, layer: Layer) -> None:
    with everything_answers(site, family) as orders:
        found = site.check(orders[layer](1))
    assert found.ok, found.detail
    assert (found.sent, found.received) == pytest.approx((site.bytes("sent"), site.bytes("received")), rel=0.2)


@BOTH
@pytest.mark.parametrize("layer", [Layer.GATEWAY, Layer.DNS, Layer.HTTP, Layer.LARGE])
def test_a_link_that_is_gone_is_a_result(site: Site, family: Family, layer: Layer) -> None:
    with everything_answers(site, family) as orders:
        order = orders[layer](2)
        site.lab.router.ip(["link del wan2"])
        found = site.check(order)
    assert not found.ok
    assert "no interface with this name" in found.detail


@BOTH
@pytest.mark.parametrize("layer", [Layer.GATEWAY, Layer.DNS, Layer.HTTP, Layer.LARGE])
def test_checks_of_one_layer_at_a_time_do_not_take_each_others_answers(
    site: Site, family: Family, layer: Layer
) -> None:
    with everything_answers(site, family) as orders:
        assert site.check(*(orders[layer](uplink) for uplink in (1, 2, 1, 2))).ok


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@BOTH
def test_close_ends_checks_under_way_and_leaves_no_file(site: Site, family: Family) -> None:
    async def main(orders: list[CheckOrder]) -> tuple[int, int]:
        # Opens what the loop and the libraries keep for themselves.
        await inspect(NetProber(), *orders)
        before = open_files()
        prober = NetProber()
        for order in orders:
            prober.check(replace(order, timeout=30.0))
        async with asyncio.timeout(5):
            while open_files() < before + len(orders):
                await asyncio.sleep(0.005)
        prober.close()
        async with asyncio.timeout(5):
            while open_files() > before:
                await asyncio.sleep(0.005)
        return open_files() - before, reported(prober).qsize()

    with everything_answers(site, family) as makers:
        site.lab.cut(1)
        with site.lab.router.entered():
            assert asyncio.run(main([make(1) for make in makers.values()])) == (0, 0)
