"""The kill switch of rules with `only`, against whatever may happen: counted where the other uplinks end."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, Servers
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import read_line
from support.firewalls import CAUSES, TIMES, flushed
from support.lan_traffic import DSCP_EF, NOBODY, OTHER_CLIENT, Asker, mac_of, needs_users, rule, started
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

LIMITED = "".join(f'"{LAN_CLIENT[family].ip}", ' for family in FAMILIES).rstrip(", ")
"""The client whose packets must never leave by another uplink than the second."""


def watch(lab: Lab) -> None:
    """Count at every provider what only the limited client sends: to a server of its own, or from a forwarded port."""
    for provider in lab.topology.providers:
        # The servers are targets of probes as well, and those go by every uplink; and when connection tracking has
        # forgotten a connection, the router itself answers the server with a reset, from the address it came to.
        lines = ["meta l4proto { icmp, ipv6-icmp } accept"]
        for family in FAMILIES:
            word, own = ("ip" if family is Family.V4 else "ip6"), lab.topology.uplink(2).addresses[family].own.ip
            lines.append(f"{word} saddr {own} tcp flags == rst accept")
            lines.append(f"{word} daddr {SERVERS[family][2]} counter name limited")
        lines.append("tcp sport 8080 counter name answers")
        hook = "type filter hook prerouting priority -300; policy accept;"
        Namespace(provider).nft(
            "table inet watch {\ncounter limited { }\ncounter answers { }\n"
            f'chain arriving {{ {hook}\niifname != "wan" accept\n' + "\n".join(lines) + "\n}\n}\n"
        )


def elsewhere(lab: Lab, *allowed: int) -> dict[str, int]:
    """What the providers of the other uplinks have counted."""
    total = {"limited": 0, "answers": 0}
    for uplink in lab.topology.uplinks:
        if uplink.number not in allowed:
            for name, packets in Namespace(uplink.provider).counters("inet watch").items():
                total[name] += packets
    return total


def lose_rules(lab: Lab) -> None:
    """Delete every policy rule of ours, as a careless program does."""
    for family in FAMILIES:
        lab.router.run(["ip", f"-{family:d}", "rule", "flush", "protocol", "200"])


async def hammer(ask: Asker, seconds: float = 0.4, **how: Any) -> None:
    """Send the limited client's datagrams, each a connection of its own, and SYNs, without waiting for answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for family in FAMILIES:
            server = str(SERVERS[family][2])
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with ask.open(family, kind, **how) as sock, suppress(OSError):
                    sock.connect((server, ECHO_PORT))
                    sock.send(b"hello")
        await asyncio.sleep(0.005)


async def works(ask: Asker, family: Family, **how: Any) -> int | None:
    """The uplink of a connection that is nobody's secret: of the other client, unless told otherwise."""
    if "namespace" not in how:
        how["source"] = OTHER_CLIENT[family]
    return await ask.tcp(SERVERS[family][1], **how)


ONLY = rule(f"from = [{LIMITED}]", to='only = "isp2"')


async def limited_by_its_uplink(ask: Asker, **how: Any) -> None:
    """The limited client works, and is counted where it may leave."""
    for family in FAMILIES:
        assert await ask.tcp(SERVERS[family][2], **how) == 2
        assert await ask.udp(SERVERS[family][2], **how) == 2
    assert Namespace("isp2").counters("inet watch")["limited"] > 0


@pytest.mark.needs("conntrack")
def test_without_the_daemon_and_without_rules_nothing_leaves_elsewhere(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = started(lab, start_daemon, ONLY)
    watch(lab)

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask)
        with ExitStack() as stack:
            kept = [await ask.keep(SERVERS[family][2], stack) for family in FAMILIES]
            daemon.kill()
            await limited_by_its_uplink(ask)
            lose_rules(lab)
            for sock in kept:
                sock.send(b"on an established connection\n")
            await hammer(ask)
            lab.router.run(["conntrack", "-F"])
            for sock in kept:
                sock.send(b"and once nobody remembers it\n")
            await hammer(ask)
        for family in FAMILIES:
            assert await ask.tcp(SERVERS[family][2], patience=0.3) is None
            assert await works(ask, family) == 1

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_rules_that_a_firewall_flushes_under_traffic_let_nothing_out(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, cause: str
) -> None:
    """By port: what policy routing cannot hold by itself."""
    limited = (f"from = [{LIMITED}]", f"port = {ECHO_PORT}")
    rules = [rule(*limited, f'protocol = "{protocol}"', to='only = "isp2"') for protocol in ("tcp", "udp")]
    started(lab, start_daemon, "\n".join(rules))
    watch(lab)

    async def story() -> None:
        ask = Asker(lab)
        for _ in range(TIMES):
            storm = asyncio.create_task(hammer(ask, 0.5))
            await asyncio.sleep(0.1)
            await flushed(lab, cause, wait_for)
            await storm
            await asyncio.sleep(1.5)

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


def test_rules_that_are_deleted_under_traffic_let_nothing_out(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    started(lab, start_daemon, ONLY)
    watch(lab)

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask)
        for _ in range(3):
            storm = asyncio.create_task(hammer(ask, 0.3))
            await asyncio.sleep(0.05)
            lose_rules(lab)
            await storm
        assert [await works(ask, family) for family in FAMILIES] == [1, 1]
        lab_rules = ["ip", "rule", "list", "protocol", "200"]
        await asyncio.to_thread(wait_for, lambda: lab.router.run(lab_rules).stdout, 5.0, "the daemon repairs")
        await limited_by_its_uplink(ask)

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


@pytest.mark.parametrize("alive", [True, False], ids=["with the daemon", "without"])
def test_what_a_rule_says_by_addresses_and_devices_holds_while_our_table_is_flushed(
    lab: Lab, start_daemon: StartDaemon, *, alive: bool
) -> None:
    by_address = rule(f"from = [{LIMITED}]", 'in_interface = "lan0"', to='only = ["isp2"]')
    daemon = started(lab, start_daemon, rule('from = "192.168.15.77"', to='uplink = "isp3"') + by_address)
    watch(lab)

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask)
        if not alive:
            daemon.kill()
        for _ in range(5):
            storm = asyncio.create_task(hammer(ask, 0.3))
            await asyncio.sleep(0.05)
            lab.router.nft("flush ruleset\n")
            watched = asyncio.create_task(hammer(ask, 0.2))
            await asyncio.gather(storm, watched)

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


@pytest.mark.parametrize("alive", [True, False], ids=["with the daemon", "without"])
def test_when_every_allowed_uplink_is_down_nothing_leaves(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, *, alive: bool
) -> None:
    daemon = started(lab, start_daemon, ONLY)
    watch(lab)
    # Refusals are rare by default (icmp_ratelimit, ip-sysctl).
    lab.router.sysctl({"ipv4/icmp_ratelimit": 0, "ipv6/icmp/ratelimit": 0})

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask)
        with ExitStack() as stack:
            kept = [await ask.keep(SERVERS[family][2], stack) for family in FAMILIES]
            if not alive:
                daemon.kill()
            storm = asyncio.create_task(hammer(ask, 0.6))
            await asyncio.sleep(0.1)
            lab.cut(2)
            await storm
            for sock in kept:
                with suppress(OSError):
                    sock.send(b"on an established connection\n")
            await hammer(ask)
        for family in FAMILIES:
            began = time.monotonic()
            assert await ask.tcp(SERVERS[family][2], patience=4.0 if alive else 0.3) is None
            # A refusal that comes back while connect(2) is still at work counts with the second SYN only.
            assert not alive or time.monotonic() - began < 2.0, "refused, not left to wait"
            assert await works(ask, family) == 1

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


def test_an_answer_to_the_outside_leaves_by_an_allowed_uplink_or_not_at_all(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    started(lab, start_daemon, ONLY)
    watch(lab)
    lab.forward_port(8080, ECHO_PORT)
    lab.router.nft(
        "table inet lab_other { chain arriving { type nat hook prerouting priority dstnat; policy accept;\n"
        f'iifname "wan*" tcp dport 8081 dnat ip to {OTHER_CLIENT[Family.V4]}:{ECHO_PORT}\n'
        f'iifname "wan*" tcp dport 8081 dnat ip6 to [{OTHER_CLIENT[Family.V6]}]:{ECHO_PORT}\n}}\n}}\n'
    )

    async def reached(number: int, family: Family, port: int) -> bool:
        sock = lab.server.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
        address = lab.topology.uplink(number).addresses[family].own.ip
        with closing(sock), suppress(OSError):
            async with asyncio.timeout(0.5):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
                return bool(await read_line(sock))
        return False

    async def story() -> None:
        inside = Servers()
        for family in FAMILIES:
            await inside.listen(lab.client, family, ECHO_PORT)
            assert [await reached(n, family, 8080) for n in (1, 2, 3)] == [False, True, False]
            assert [await reached(n, family, 8081) for n in (1, 2, 3)] == [True, True, True]
        await inside.close()

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}
    assert Namespace("isp2").counters("inet watch")["answers"] > 0


CONDITIONS = {
    "mac": 'mac = "{mac}"',
    "in_interface": 'in_interface = "lan0"',
    "dscp": 'dscp = "ef"',
    "time": 'time = "mon-sun 00:00-24:00"',
    "not": 'not = {{from = ["192.168.15.11", "2001:db8:15::11"], user = "root", dscp = "cs1"}}',
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_kill_switch_sees_what_the_rules_see(lab: Lab, start_daemon: StartDaemon, name: str) -> None:
    condition = CONDITIONS[name].format(mac=mac_of(lab.client, "eth0"))
    other = ", ".join(f'"{OTHER_CLIENT[family]}"' for family in FAMILIES)
    started(lab, start_daemon, rule(f"from = [{other}]", to='policy = "default"') + rule(condition, to='only = "isp2"'))
    watch(lab)
    how: dict[str, Any] = {"dscp": DSCP_EF} if name == "dscp" else {}

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask, **how)
        storm = asyncio.create_task(hammer(ask, 0.4, **how))
        await asyncio.sleep(0.05)
        lose_rules(lab)
        await storm
        for family in FAMILIES:
            assert await works(ask, family) == 1

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


def test_the_kill_switch_holds_a_user_of_the_box(lab: Lab, start_daemon: StartDaemon) -> None:
    needs_users()
    daemon = started(lab, start_daemon, rule(f"user = {NOBODY}", to='only = "isp2"'))
    watch(lab)
    limited: dict[str, Any] = {"namespace": lab.router, "user": NOBODY}

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask, **limited)
        daemon.kill()
        lose_rules(lab)
        await hammer(ask, **limited)
        for family in FAMILIES:
            assert await works(ask, family, namespace=lab.router) == 1

    with_servers(lab, story)
    assert elsewhere(lab, 2) == {"limited": 0, "answers": 0}


def test_probes_go_by_every_uplink_although_nothing_else_may(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = started(lab, start_daemon, rule(to='only = "isp2"'))
    watch(lab)
    for family in FAMILIES:
        lab.router.run(["ip", f"-{family:d}", "neighbour", "flush", "all"])

    async def story() -> None:
        ask = Asker(lab)
        await limited_by_its_uplink(ask)
        for number in (1, 3):
            lab.blackhole(number)

        def states() -> list[str]:
            return [u.state for u in daemon.status().uplinks]

        await asyncio.to_thread(wait_for, lambda: states() == ["down", "up", "down"], 10.0, "their silence is noticed")
        for number in (1, 3):
            lab.unblackhole(number)
        # Only probes that go out, and neighbours that are found, bring an uplink back.
        for family in FAMILIES:
            lab.router.run(["ip", f"-{family:d}", "neighbour", "flush", "all"])
        await asyncio.to_thread(wait_for, lambda: states() == ["up", "up", "up"], 20.0, "they are up again")
        await limited_by_its_uplink(ask)

    with_servers(lab, story)


def dig_tunnel(lab: Lab) -> Namespace:
    """A VPN in the manner of OpenVPN's redirect-gateway def1: it takes everything, and has no default route."""
    far = Namespace("vpn")
    far.create()
    lab.router.ip(["link add tun0 type veth peer name far0 netns vpn", "link set tun0 up"])
    far.ip(["link set far0 up", "addr add 10.8.0.1/24 dev far0", "addr add fd08::1/64 dev far0 nodad"])
    lab.router.ip(["addr add 10.8.0.2/24 dev tun0", "addr add fd08::2/64 dev tun0 nodad"])
    lab.router.ip([f"route add {to} via 10.8.0.1" for to in ("0.0.0.0/1", "128.0.0.0/1")])
    lab.router.ip([f"route add {to} via fd08::1" for to in ("::/1", "8000::/1")])
    servers = [f"{'ip' if f is Family.V4 else 'ip6'} daddr {SERVERS[f][2]}" for f in FAMILIES]
    clients = [f"{'ip' if f is Family.V4 else 'ip6'} saddr {LAN_CLIENT[f].ip} counter name limited" for f in FAMILIES]
    counted = [f"{server} {client}" for server, client in zip(servers, clients, strict=True)]
    far.nft(
        "table inet watch {\ncounter limited { }\ncounter others { }\nchain arriving {\n"
        "type filter hook prerouting priority -300; policy accept;\n"
        + "\n".join([*counted, *(f"{server} counter name others" for server in servers)])
        + "\n}\n}\n"
    )
    return far


def test_a_vpn_that_takes_a_default_route_apart_gets_no_packet(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    started(lab, start_daemon, ONLY)
    far = dig_tunnel(lab)
    try:

        def inside() -> str:
            return lab.router.run(["nft", "list", "set", "inet", "polywan", "inside"]).stdout

        wait_for(lambda: "tun0" not in inside() and "lan0" in inside(), 5.0, "the tunnel is seen")

        async def story() -> None:
            ask = Asker(lab)
            await hammer(ask)

        with_servers(lab, story)
        assert far.counters("inet watch")["limited"] == 0
        for family in FAMILIES:
            with Asker(lab).open(family, socket.SOCK_DGRAM, source=OTHER_CLIENT[family]) as sock:
                sock.sendto(b"taken by the tunnel", (str(SERVERS[family][2]), ECHO_PORT))
        assert far.counters("inet watch")["others"] > 0
    finally:
        far.delete()


def test_a_packet_for_the_inside_is_nobodys_business(lab: Lab, start_daemon: StartDaemon) -> None:
    started(lab, start_daemon, rule(to='only = "isp2"'))
    for family in FAMILIES:
        done = lab.router.run(["ping", "-c1", "-W1", str(LAN_CLIENT[family].ip)], check=False)
        assert done.returncode == 0, done.stdout
