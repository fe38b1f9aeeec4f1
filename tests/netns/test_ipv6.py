"""IPv6 with delegated prefixes, in a real router: who leaves by which uplink, with which source."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from contextlib import closing
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import error_name, open_connections, read_line, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

PREFIX = {1: IPv6Network("2001:db8:a::/56"), 2: IPv6Network("2001:db8:b::/56")}
RENEWED = IPv6Network("2001:db8:c::/56")
ULA = IPv6Network("fd00:15:0:3::/64")
HOST = 0xABCD
SERVER = SERVERS[Family.V6][0]
COUNTER = "inet lab_leaks"


def host(prefix: IPv6Network, *, subnet: int = 1, number: int = HOST) -> str:
    """Return a host's address in the LAN's network of a delegated prefix; `number` is what comes last."""
    return str(prefix[(subnet << 64) + number])


def toml(lab: Lab, **more: str) -> str:
    """Return the lab's configuration with further lines for some uplinks."""
    text = configuration(lab.topology, (1,) * len(lab.topology.uplinks))
    for name, lines in more.items():
        text = text.replace(f"[uplinks.{name}]\n", f"[uplinks.{name}]\n{lines}\n")
    return text


def delegate(lab: Lab, number: int, prefix: IPv6Network) -> None:
    """Let a provider route a prefix to the router, as DHCPv6 would, and the router know whose it is."""
    address = lab.topology.uplink(number).addresses[Family.V6]
    lab.provider(number).ip([f"route add {prefix} via {address.own.ip} dev wan"])
    lab.provider(number).nft(f"insert rule inet lab from{number} ip6 saddr {prefix} accept\n")
    lab.server.ip([f"route add {prefix} via 2001:db8:ff:{number}::1 dev x{number} src {SERVER}"])
    lab.router.ip([f"route add default from {prefix} via {address.gateway} dev wan{number}"])
    give_lan(lab, prefix)


def give_lan(lab: Lab, prefix: IPv6Network) -> None:
    lab.router.ip([f"address add {host(prefix, number=1)}/64 dev lan0 nodad"])
    lab.client.ip([f"address add {host(prefix)}/64 dev eth0 nodad"])


def give_ula(lab: Lab) -> None:
    lab.router.ip([f"address add {ULA[1]}/64 dev lan0 nodad"])
    lab.client.ip([f"address add {ULA[HOST]}/64 dev eth0 nodad"])


@pytest.fixture
def delegated(lab_of: BuildLab) -> Lab:
    """Two uplinks with a delegated prefix each; the LAN has both and a ULA prefix."""
    lab = lab_of(2)
    for number, prefix in PREFIX.items():
        delegate(lab, number, prefix)
    give_ula(lab)
    return lab


async def seen(source: str, namespace: Namespace, patience: float = 3.0) -> str:
    """Return the client's address as a server sees it, or the name of the error."""
    with closing(namespace.socket(socket.AF_INET6, socket.SOCK_STREAM)) as sock:
        try:
            sock.bind((source, 0))
            async with asyncio.timeout(patience):
                await asyncio.get_running_loop().sock_connect(sock, (str(SERVER), ECHO_PORT))
                return await read_line(sock)
        except OSError as error:
            return error_name(error)


def sources(lab: Lab, source: str, count: int = 6, *, router: bool = False) -> Counter[str]:
    """Open connections one after the other and count the addresses that the server saw."""
    found: Counter[str] = Counter()

    async def story() -> None:
        for _ in range(count):
            found[await seen(source, lab.router if router else lab.client)] += 1

    with_servers(lab, story)
    return found


def wan(number: int) -> str:
    return f"2001:db8:64:{number}::2"


def spoofed(lab: Lab) -> int:
    return sum(count.spoofed for count in lab.all_seen().values())


def test_a_native_source_leaves_by_the_uplink_of_its_prefix_untouched(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(delegated, toml(delegated))
    for prefix in PREFIX.values():
        assert sources(delegated, host(prefix)) == {host(prefix): 6}
    assert spoofed(delegated) == 0


def test_the_boxs_own_native_source_lives_on_where_polywan_leaves_a_connection_alone(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    """Nothing is translated there, and the address is the LAN device's, as with a delegated prefix over PPPoE."""
    start_daemon(delegated, toml(delegated) + f'[[rules]]\nto = "{SERVER}"\naction = "bypass"\n')

    async def story() -> None:
        for prefix in PREFIX.values():
            own = host(prefix, number=1)
            with closing(delegated.router.socket(socket.AF_INET6, socket.SOCK_STREAM)) as sock:
                sock.bind((own, 0))
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(3):
                    await loop.sock_connect(sock, (str(SERVER), ECHO_PORT))
                    assert await loop.sock_recv(sock, 200) == f"{own}\n".encode()
                    for _ in range(3):
                        await loop.sock_sendall(sock, b"beat")
                        assert await loop.sock_recv(sock, 200) == b"beat"

    with_servers(delegated, story)
    assert spoofed(delegated) == 0


def test_a_ula_source_is_shared_and_gets_the_uplinks_prefix_with_its_own_subnet_and_host_bits(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(delegated, toml(delegated))
    assert sources(delegated, str(ULA[HOST])) == {host(p, subnet=3): 3 for p in PREFIX.values()}
    assert spoofed(delegated) == 0


def test_udp_and_later_packets_of_a_translated_flow_come_back(delegated: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(delegated, toml(delegated))
    answers: list[str] = []

    async def story() -> None:
        with closing(delegated.client.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
            sock.bind((str(ULA[HOST]), 0))
            sock.connect((str(SERVER), ECHO_PORT))
            for number in range(3):
                async with asyncio.timeout(3.0):
                    await asyncio.get_running_loop().sock_sendall(sock, f"{number}".encode())
                    answers.append((await asyncio.get_running_loop().sock_recv(sock, 4096)).decode())

    with_servers(delegated, story)
    address = answers[0].split()[0]
    assert address in {host(p, subnet=3) for p in PREFIX.values()}
    assert answers == [f"{address} {number}" for number in range(3)]


def test_while_its_uplink_is_down_a_prefix_leaves_by_the_other_one_in_exchange_for_its_prefix(
    delegated: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(delegated, toml(delegated))
    delegated.cut(1)
    wait_for(lambda: daemon.uplink(1).state == "down")
    assert sources(delegated, host(PREFIX[1])) == {host(PREFIX[2]): 6}
    assert sources(delegated, host(PREFIX[2])) == {host(PREFIX[2]): 6}
    assert spoofed(delegated) == 0


def test_a_uplink_that_stands_by_gets_no_native_connection(delegated: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(delegated, toml(delegated, isp2="metered = true"))
    assert sources(delegated, host(PREFIX[2])) == {host(PREFIX[1]): 6}


def test_a_rule_wins_over_the_prefix(delegated: Lab, start_daemon: StartDaemon) -> None:
    rule = f'[[rules]]\nprotocol = "tcp"\nport = {ECHO_PORT}\nuplink = "isp2"\n'
    start_daemon(delegated, toml(delegated) + rule)
    assert sources(delegated, host(PREFIX[1])) == {host(PREFIX[2]): 6}


def test_without_a_prefix_the_uplink_masquerades(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    delegate(lab, 1, PREFIX[1])
    give_ula(lab)
    start_daemon(lab, toml(lab))
    assert sources(lab, host(PREFIX[1])) == {host(PREFIX[1]): 6}
    assert sources(lab, str(ULA[HOST])) == {host(PREFIX[1], subnet=3): 3, wan(2): 3}


def test_masquerade_by_name_hides_every_source(delegated: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(delegated, toml(delegated, isp1='nat6 = "masquerade"', isp2='nat6 = "masquerade"'))
    assert sources(delegated, host(PREFIX[1])) == {wan(1): 3, wan(2): 3}


def test_prefix_by_name_shares_native_sources_too(delegated: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(delegated, toml(delegated, isp1='nat6 = "prefix"', isp2='nat6 = "prefix"'))
    assert sources(delegated, host(PREFIX[1])) == {host(PREFIX[1]): 3, host(PREFIX[2]): 3}


def test_a_prefix_from_the_file_needs_no_route(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    for number, prefix in PREFIX.items():
        delegate(lab, number, prefix)
        lab.router.ip([f"route del default from {prefix} dev wan{number}"])
    lines = {f"isp{number}": f'prefix6 = "{prefix}"' for number, prefix in PREFIX.items()}
    start_daemon(lab, toml(lab, **lines))
    for prefix in PREFIX.values():
        assert sources(lab, host(prefix)) == {host(prefix): 6}


def test_nested_and_shared_prefixes_are_all_taken_by_the_kernel(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(3)
    prefixes = [
        '["2001:db8:a::/48", "2001:db8:d::/64"]',
        '["2001:db8:a:100::/56", "2001:db8:d::/64", "fd00::/8"]',
        '["::/0", "2001:db8:64:3::/64"]',
    ]
    lines = {f"isp{number}": f"prefix6 = {text}" for number, text in enumerate(prefixes, start=1)}
    daemon = start_daemon(lab, toml(lab, **lines))
    assert daemon.status().warnings == ()
    assert "2001:db8:a:100::/56 : goto to_isp2" in in_force(lab)


def renew(lab: Lab, number: int, prefix: IPv6Network) -> None:
    """Do what a DHCPv6 client does when the provider has a new prefix for it."""
    old, gateway = PREFIX[number], lab.topology.uplink(number).addresses[Family.V6].gateway
    lab.router.ip(
        [
            f"route del default from {old} via {gateway} dev wan{number}",
            f"address del {host(old, number=1)}/64 dev lan0",
        ]
    )
    lab.client.ip([f"address del {host(old)}/64 dev eth0"])
    delegate(lab, number, prefix)


def in_force(lab: Lab) -> str:
    """Everything of ours that may name a prefix."""
    table = lab.router.run(["nft", "list", "table", "inet", "polywan"]).stdout
    return table + lab.router.run(["ip", "-6", "rule"]).stdout


def test_a_renewed_prefix_takes_the_place_of_the_old_one_everywhere(
    delegated: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(delegated, toml(delegated))
    assert sources(delegated, host(PREFIX[1]), 2) == {host(PREFIX[1]): 2}
    renew(delegated, 1, RENEWED)
    wait_for(lambda: daemon.uplink(1).prefixes6 == (str(RENEWED),))
    wait_for(lambda: "2001:db8:a:" not in in_force(delegated), what="no trace of the old prefix")
    assert sources(delegated, host(RENEWED)) == {host(RENEWED): 6}
    assert sources(delegated, str(ULA[HOST])) == {host(p, subnet=3): 3 for p in (RENEWED, PREFIX[2])}
    assert spoofed(delegated) == 0


def test_a_renewal_by_one_uplink_leaves_connections_by_the_other_alone(
    delegated: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(delegated, toml(delegated))

    async def story() -> None:
        loop = asyncio.get_running_loop()
        with closing(delegated.client.socket(socket.AF_INET6, socket.SOCK_STREAM)) as sock:
            sock.bind((host(PREFIX[2]), 0))
            await loop.sock_connect(sock, (str(SERVER), ECHO_PORT))
            assert await read_line(sock) == host(PREFIX[2])
            await asyncio.to_thread(renew, delegated, 1, RENEWED)
            await asyncio.to_thread(wait_for, lambda: daemon.uplink(1).prefixes6 == (str(RENEWED),))
            await loop.sock_sendall(sock, b"still here\n")
            async with asyncio.timeout(3.0):
                assert await read_line(sock) == "still here"

    with_servers(delegated, story)


def test_a_prefix_that_vanishes_leaves_masquerade_behind(
    delegated: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(delegated, toml(delegated))
    delegated.router.ip([f"route del default from {PREFIX[1]} dev wan1"])
    wait_for(lambda: daemon.uplink(1).nat6_mode == "masquerade")
    assert sources(delegated, str(ULA[HOST])) == {wan(1): 3, host(PREFIX[2], subnet=3): 3}
    assert sources(delegated, host(PREFIX[1])) == {wan(1): 3, host(PREFIX[2]): 3}
    assert spoofed(delegated) == 0


def test_a_foreign_source_never_leaves_by_an_uplink_that_translates_nothing(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(delegated, toml(delegated, isp1='nat6 = "native"'))
    assert sources(delegated, str(ULA[HOST])) == {host(PREFIX[2], subnet=3): 6}
    assert sources(delegated, host(PREFIX[1])) == {host(PREFIX[1]): 6}


def test_where_no_uplink_translates_a_foreign_source_is_refused_at_once(
    delegated: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(delegated, toml(delegated, isp1='nat6 = "native"', isp2='nat6 = "native"'))
    count_leaks(delegated, probed=True)
    assert sources(delegated, str(ULA[HOST]), 2) == {"EACCES": 2}
    delegated.cut(1)
    wait_for(lambda: daemon.uplink(1).state == "down")
    assert sources(delegated, host(PREFIX[1]), 2) == {"EACCES": 2}
    assert leaks(delegated) == 0
    assert sources(delegated, host(PREFIX[2]), 2) == {host(PREFIX[2]): 2}


def test_a_specific_route_does_not_take_a_foreign_source_past_a_native_uplink(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    delegated.router.ip([f"route add {SERVER} via {delegated.topology.uplink(1).addresses[Family.V6].gateway}"])
    start_daemon(delegated, toml(delegated, isp1='nat6 = "native"'))
    count_leaks(delegated, probed=True)

    async def story() -> None:
        assert await seen(str(ULA[HOST]), delegated.client, patience=0.5) == "timeout"

    with_servers(delegated, story)
    assert leaks(delegated) == 0


def test_the_boxs_own_sockets_in_a_prefix_leave_by_its_uplink(delegated: Lab, start_daemon: StartDaemon) -> None:
    start_daemon(delegated, toml(delegated))
    for prefix in PREFIX.values():
        own = host(prefix, number=1)
        assert sources(delegated, own, router=True) == {own: 6}


def test_where_main_has_source_specific_defaults_only_everything_works_and_the_box_is_shared(
    delegated: Lab, start_daemon: StartDaemon
) -> None:
    for number in PREFIX:
        gateway = delegated.topology.uplink(number).addresses[Family.V6].gateway
        delegated.router.ip([f"route del default via {gateway} dev wan{number} metric {1024 + number}"])
    start_daemon(delegated, toml(delegated))
    for prefix in PREFIX.values():
        assert sources(delegated, host(prefix), 2) == {host(prefix): 2}
    assert sources(delegated, str(ULA[HOST]), 2) == {host(p, subnet=3): 1 for p in PREFIX.values()}

    async def story() -> None:
        opened = await open_connections(delegated, 6, SERVER, namespace=delegated.router)
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {1: 3, 2: 3}

    with_servers(delegated, story)


def test_an_uplink_without_an_address_of_its_own_serves_by_its_prefix(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    delegate(lab, 1, PREFIX[1])
    lab.router.ip(
        [
            f"address del {wan(1)}/64 dev wan1",
            f"route replace default from {PREFIX[1]} via fe80::1 dev wan1",
            "route replace default via fe80::1 dev wan1 metric 1025",
        ]
    )
    lab.provider(1).ip([f"route replace {PREFIX[1]} via fe80::2:1 dev wan"])
    daemon = start_daemon(lab, toml(lab, isp1='families = "ipv6"'))
    wait_for(lambda: daemon.uplink(1).rtt_ms is not None, what="probes were answered")
    assert daemon.uplink(1).state == "up"
    assert daemon.uplink(1).address6 == host(PREFIX[1], number=1)
    assert sources(lab, host(PREFIX[1])) == {host(PREFIX[1]): 6}
    assert sources(lab, host(PREFIX[1], number=1), 2, router=True) == {host(PREFIX[1], number=1): 2}
    assert spoofed(lab) == 0


def test_a_lan_source_goes_where_another_programs_rules_lead_it(delegated: Lab, start_daemon: StartDaemon) -> None:
    delegated.router.ip(
        [
            "link add vpn0 type veth peer name vpn1",
            "link set vpn0 up",
            "link set vpn1 up",
            f"route add {SERVER} dev vpn0 table 77",
        ]
    )
    delegated.router.run(["ip", "-6", "rule", "add", "pref", "30000", "lookup", "77"])
    start_daemon(delegated, toml(delegated))
    asked = ["ip", "-6", "-json", "route", "get", str(SERVER), "from", host(PREFIX[1]), "iif", "lan0"]
    assert json.loads(delegated.router.run(asked).stdout)[0]["dev"] == "vpn0"


def test_status_tells_prefixes_and_what_becomes_of_sources(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(3, ipv4_only=(3,))
    delegate(lab, 1, PREFIX[1])
    daemon = start_daemon(lab, toml(lab))
    shown = [(u.prefixes6, u.nat6_mode) for u in daemon.status().uplinks]
    assert shown == [((str(PREFIX[1]),), "prefix"), ((), "masquerade"), ((), None)]


def count_leaks(lab: Lab, *, probed: bool = False) -> None:
    """Count at the providers' ends what comes by IPv6 and is no neighbour discovery, nor of the box when `probed`."""
    own = "ip6 saddr != 2001:db8:64::/48 " if probed else ""
    for number in range(1, len(lab.topology.uplinks) + 1):
        lab.provider(number).nft(
            f"table {COUNTER} {{ counter leaked {{ }}\ncounter asked {{ }}\n"
            "chain arriving { type filter hook prerouting priority -300; policy accept;\n"
            'iifname != "wan" accept\nicmpv6 type { 130-137, 143 } accept\n'
            "ip6 saddr fe80::/10 udp dport 547 counter name asked accept\n"
            f"meta nfproto ipv6 {own}counter name leaked\n}}\n}}\n"
        )


def leaks(lab: Lab) -> int:
    numbers = range(1, len(lab.topology.uplinks) + 1)
    return sum(lab.provider(number).counters(COUNTER)["leaked"] for number in numbers)


async def refusal(namespace: Namespace, kind: socket.SocketKind, server: str) -> str:
    """Say something to a server and return the name of the error, empty when it answers."""
    loop = asyncio.get_running_loop()
    with closing(namespace.socket(socket.AF_INET6, kind)) as sock:
        # Without it the kernel keeps an unreachable network from UDP sockets (IPV6_RECVERR, ipv6(7)).
        sock.setsockopt(socket.IPPROTO_IPV6, 25, 1)
        try:
            async with asyncio.timeout(2.5):
                await loop.sock_connect(sock, (server, ECHO_PORT))
                await loop.sock_sendall(sock, b"leak?")
                await loop.sock_recv(sock, 100)
        except OSError as error:
            return error_name(error)
    return ""


async def try_everything(namespace: Namespace) -> None:
    """Open IPv6 connections of several kinds; each must be refused before its patience ends."""
    for server in SERVERS[Family.V6]:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            error = await refusal(namespace, kind, str(server))
            assert error not in ("", "timeout"), (namespace.name, kind.name)
    ping = ["ping", "-6", "-c1", "-W1", str(SERVER)]
    assert (await asyncio.to_thread(namespace.run, ping, check=False)).returncode != 0


def nothing_leaks(lab: Lab) -> None:
    async def story() -> None:
        for namespace in (lab.client, lab.router):
            await try_everything(namespace)

    with_servers(lab, story)
    assert leaks(lab) == 0


@pytest.mark.needs("ping")
def test_with_ipv4_only_in_the_file_not_one_ipv6_packet_leaves(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    count_leaks(lab)
    lines = 'families = "ipv4"'
    start_daemon(lab, toml(lab, isp1=lines, isp2=lines))
    nothing_leaks(lab)


@pytest.mark.needs("ping")
def test_when_only_ipv4_has_an_uplink_left_not_one_ipv6_packet_leaves(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2, ipv4_only=(1,))
    lab.router.ip(["route add default via fe80::1 dev wan1 metric 5000"])
    daemon = start_daemon(lab, toml(lab, isp1='families = "ipv4"'))
    lab.cut(2)
    wait_for(lambda: daemon.uplink(2).state == "down")
    # Until then its own probes were no leak.
    count_leaks(lab)
    nothing_leaks(lab)
    assert sources_v4(lab) == {1: 4}


def sources_v4(lab: Lab) -> Counter[int]:
    found: Counter[int] = Counter()

    async def story() -> None:
        opened = await open_connections(lab, 4, SERVERS[Family.V4][0])
        opened.close()
        found.update(shares(a.uplink for a in opened.attempts))

    with_servers(lab, story)
    return found


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_a_dhcpv6_client_of_the_box_asks_with_its_own_link_local_address(
    lab_of: BuildLab, start_daemon: StartDaemon, families: str
) -> None:
    lab = lab_of(1)
    count_leaks(lab)
    start_daemon(lab, toml(lab, isp1=f'families = ["ipv4", "{families}"]'))
    with lab.router.entered():
        scope = socket.if_nametoindex("wan1")
    with lab.router.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("fe80::2:1", 546, 0, scope))
        sock.sendto(b"solicit", ("ff02::1:2", 547, 0, scope))
    asked = lab.provider(1).counters(COUNTER)["asked"]
    assert asked == 1
    assert str(IPv6Address("fe80::2:1")) in lab.router.run(["conntrack", "-L", "-f", "ipv6", "-p", "udp"]).stdout
