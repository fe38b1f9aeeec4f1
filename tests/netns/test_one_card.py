"""Several modems on one switch behind one network card: an uplink for each of their routers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, Servers
from polywan.lab.topology import LAN_CLIENT, SERVERS, LabUplink
from polywan.lab.traffic import connect, open_connections, read_line, shares, udp_flows
from support.netns import polywan, until, with_servers
from support.one_card import CARD, card_configuration, one_card

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

pytestmark = pytest.mark.needs("bridge")
both = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def card(lab: Lab) -> Iterator[Lab]:
    """Three modems, both families."""
    with one_card(lab):
        yield lab


def spoofed(lab: Lab) -> dict[int, int]:
    """What each provider has seen of sources that are another one's."""
    return {number: seen.spoofed for number, seen in lab.all_seen().items()}


async def seen_by_server(namespace: Namespace, family: Family, source: IPAddress | str = "") -> str:
    """Connect once, from that address of the namespace if one is named; return whose address the server saw."""
    with closing(namespace.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)) as sock:
        if source:
            sock.bind((str(source), 0))
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(sock, (str(SERVERS[family][0]), ECHO_PORT))
            return await read_line(sock)


def one_and_two(lab: Lab) -> tuple[str, IPAddress, IPAddress]:
    """Give the first uplink a second address of its provider; return a file with an uplink for each, and the two."""
    isp = lab.topology.uplink(1)
    gateway, own = isp.addresses[Family.V4].gateway, isp.addresses[Family.V4].own
    second = own.ip + 5
    lab.router.ip([f"address add {second}/24 dev {isp.interface}"])
    text = card_configuration(lab, (1, 1, 1), (Family.V4,))
    keys = f'interface = "{isp.interface}"\ngateway = "{gateway}"\n'
    uplinks = f'[uplinks.one]\n{keys}source = "{own.ip}"\n[uplinks.two]\n{keys}source = "{second}"\n'
    return text[: text.index("[uplinks.isp1]")] + uplinks, own.ip, second


@both
def test_connections_are_shared_exactly_by_weight(card: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(card, card_configuration(card, (3, 2, 1)))

    async def story() -> None:
        opened = await open_connections(card, 60, SERVERS[family][0])
        assert [a.error for a in opened.attempts if a.error] == []
        assert shares(a.uplink for a in opened.attempts) == {1: 30, 2: 20, 3: 10}
        assert {await connection.ask("still there?") for connection in opened.connections} == {"still there?"}
        opened.close()
        assert shares(await udp_flows(card, 30, SERVERS[family][0])) == {1: 15, 2: 10, 3: 5}
        assert spoofed(card) == {1: 0, 2: 0, 3: 0}

    with_servers(card, story)


@both
def test_the_boxs_own_connections_are_shared_too(card: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(card, card_configuration(card, (3, 2, 1)))

    async def story() -> None:
        opened = await open_connections(card, 60, SERVERS[family][0], namespace=card.router)
        assert [a.error for a in opened.attempts if a.error] == []
        assert shares(a.uplink for a in opened.attempts) == {1: 30, 2: 20, 3: 10}
        opened.close()
        assert spoofed(card) == {1: 0, 2: 0, 3: 0}

    with_servers(card, story)


@both
def test_a_modem_that_loses_its_line_takes_its_own_connections_and_no_others(
    card: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(card, card_configuration(card, (1, 1, 1)))

    async def story() -> None:
        opened = await open_connections(card, 30, SERVERS[family][0])
        card.blackhole(2)
        await until(lambda: daemon.uplink(2).state == "down")
        ends = await asyncio.gather(*(c.ask("hello", 3.0) for c in opened.connections), return_exceptions=True)
        broken = {c.attempt.uplink for c, end in zip(opened.connections, ends, strict=True) if end != "hello"}
        assert broken == {2}
        assert {daemon.uplink(number).state for number in (1, 3)} == {"up"}
        again = await open_connections(card, 20, SERVERS[family][0])
        assert shares(a.uplink for a in again.attempts) == {1: 10, 3: 10}
        card.unblackhole(2)
        await until(lambda: daemon.uplink(2).state == "up", timeout=20.0)
        assert {number: count for number, count in spoofed(card).items() if number != 2} == {1: 0, 3: 0}
        for one in (opened, again):
            one.close()

    with_servers(card, story)


@both
def test_a_connection_from_outside_is_answered_by_the_modem_it_came_by(
    card: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(card, card_configuration(card, (1, 1, 1)))
    card.forward_port(8080, ECHO_PORT)
    # The lab forwards what comes in by wan*.
    card.router.run(["nft", "flush", "chain", "inet", "lab_forward", "arriving"])
    word, host = ("ip", f"{LAN_CLIENT[family].ip}") if family is Family.V4 else ("ip6", f"[{LAN_CLIENT[family].ip}]")
    card.router.nft(
        f'add rule inet lab_forward arriving iifname "{CARD}" tcp dport 8080 dnat {word} to {host}:{ECHO_PORT}\n'
    )

    async def story() -> None:
        box, inside = Servers(), Servers()
        await box.listen(card.router, family, ECHO_PORT)
        await inside.listen(card.client, family, ECHO_PORT)
        for uplink in card.topology.uplinks:
            for port in (ECHO_PORT, 8080):
                address = uplink.addresses[family].own.ip
                attempt, connection = await connect(card, address, namespace=card.server, port=port)
                assert connection is not None, (uplink.number, port, attempt.error)
                assert await connection.ask("still there?")
                connection.close()
        await box.close()
        await inside.close()
        assert spoofed(card) == {1: 0, 2: 0, 3: 0}

    with_servers(card, story)


def test_with_one_address_the_router_that_sent_a_packet_tells_whose_it_is(
    card: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    # The second modem is in the first one's network and translates, as modems at home do; so does the first.
    second = card.provider(2)
    second.ip(["address flush dev wan", "address add 100.64.1.254/24 dev wan"])
    for number in (1, 2):
        modem = card.provider(number)
        modem.nft(f"flush chain inet lab from{number}\n")
        hook = "type nat hook postrouting priority srcnat; policy accept;"
        arrival = "type nat hook prerouting priority dstnat; policy accept;"
        modem.nft(
            f'table ip home {{ chain out {{ {hook}\noifname "core" masquerade\n}}\n'
            f'chain in {{ {arrival}\niifname "core" tcp dport {ECHO_PORT} dnat to 100.64.1.2\n}}\n}}\n'
        )
    card.router.ip([f"address del {card.topology.uplink(2).addresses[Family.V4].own} dev {CARD}"])
    text = card_configuration(card, (1, 1, 1), (Family.V4,)).replace("100.64.2.1", "100.64.1.254")
    daemon = start_daemon(card, text)
    wait_for(lambda: all(daemon.uplink(number).state == "up" for number in (1, 2)))

    async def story() -> None:
        box = Servers()
        await box.listen(card.router, Family.V4, ECHO_PORT)
        for number in (1, 2):
            # The modem's own address towards the servers: it sends the connection on to the router.
            modem = f"10.255.{number}.1"
            with closing(card.server.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
                async with asyncio.timeout(5):
                    await asyncio.get_running_loop().sock_connect(sock, (modem, ECHO_PORT))
                    assert await read_line(sock)
        await box.close()
        opened = await open_connections(card, 20, SERVERS[Family.V4][0])
        assert [a.error for a in opened.attempts if a.error] == []
        opened.close()

    with_servers(card, story)
    assert json.loads(polywan(daemon, "status", "--json").stdout)["uplinks"][1]["gateway"] == "100.64.1.254"


@both
def test_a_limited_client_never_leaves_by_another_modem(card: Lab, start_daemon: StartDaemon, family: Family) -> None:
    rule = f'[[rules]]\nfrom = "{LAN_CLIENT[family].ip}"\nuplink = "isp2"\nonly = ["isp2"]\n'
    daemon = start_daemon(card, card_configuration(card, (1, 1, 1)) + rule)

    async def story() -> None:
        opened = await open_connections(card, 12, SERVERS[family][0])
        assert shares(a.uplink for a in opened.attempts) == {2: 12}
        card.blackhole(2)
        await until(lambda: daemon.uplink(2).state == "down")
        attempt, connection = await connect(card, SERVERS[family][0], patience=1.0)
        assert connection is None, attempt
        opened.close()

    with_servers(card, story)


@both
def test_a_socket_that_is_bound_to_the_card_leaves_by_it(card: Lab, start_daemon: StartDaemon, family: Family) -> None:
    start_daemon(card, card_configuration(card, (1, 1, 1)))

    async def story() -> None:
        for _ in range(6):
            attempt, connection = await connect(card, SERVERS[family][0], namespace=card.router, device=CARD)
            assert connection is not None, attempt.error
            assert await connection.ask("hello")
            # In IPv6 nothing shows whether a socket is bound: it takes its turn among the card's modems.
            assert attempt.uplink == 1 or family is Family.V6
            connection.close()
        # Bound to an address, it leaves by that one's modem.
        for uplink in card.topology.uplinks:
            own = uplink.addresses[family].own.ip
            assert await seen_by_server(card.router, family, own) == str(own)
        assert spoofed(card) == {1: 0, 2: 0, 3: 0}

    with_servers(card, story)


@both
def test_hosts_of_the_link_itself_are_reached_and_answered(
    card: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    start_daemon(card, card_configuration(card, (1, 1, 1)))

    async def story() -> None:
        modem = Servers()
        await modem.listen(card.provider(2), family, 8081)
        page = card.topology.uplink(2).addresses[family].gateway
        for namespace in (card.client, card.router):
            attempt, connection = await connect(card, page, namespace=namespace, port=8081)
            assert connection is not None, (namespace.name, attempt.error)
            connection.close()
        await modem.close()

    with_servers(card, story)


def test_a_second_modem_joins_without_a_connection_lost(card: Lab, start_daemon: StartDaemon) -> None:
    text = card_configuration(card, (1, 1, 1))
    alone = text[: text.index("[uplinks.isp2]")]
    daemon = start_daemon(card, alone)

    async def story() -> None:
        opened = await open_connections(card, 10, SERVERS[Family.V4][0])
        assert shares(a.uplink for a in opened.attempts) == {1: 10}
        await asyncio.to_thread(daemon.config.write_text, text, "utf-8")
        await asyncio.to_thread(daemon.reload)
        await until(lambda: all(daemon.uplink(number).state == "up" for number in (1, 2, 3)))
        assert [await connection.ask("hello") for connection in opened.connections] == ["hello"] * 10
        again = await open_connections(card, 12, SERVERS[Family.V4][0])
        assert shares(a.uplink for a in again.attempts) == {1: 4, 2: 4, 3: 4}
        assert [await connection.ask("hello") for connection in opened.connections] == ["hello"] * 10
        for one in (opened, again):
            one.close()

    with_servers(card, story)


def test_why_names_the_modem_and_the_kernel_agrees(card: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    rule = '[[rules]]\nport = 25\nprotocol = "tcp"\nuplink = "isp3"\n'
    daemon = start_daemon(card, card_configuration(card, (1, 1, 1)) + rule)
    wait_for(lambda: daemon.uplink(3).state == "up")
    [row] = [line for line in polywan(daemon, "status").stdout.splitlines() if line.startswith("isp3")]
    assert row.split()[-2:] == ["-", "-"]
    found = polywan(daemon, "why", str(LAN_CLIENT[Family.V4].ip), f"{SERVERS[Family.V4][0]}:25", "--json")
    answer = json.loads(found.stdout)
    assert answer["uplinks"][0]["name"] == "isp3"
    assert answer["agrees"] is True, found.stdout


def test_two_addresses_of_one_provider_are_two_uplinks(lab: Lab, start_daemon: StartDaemon) -> None:
    text, own, second = one_and_two(lab)
    start_daemon(lab, f'{text}[uplinks.isp2]\ninterface = "{lab.topology.uplink(2).interface}"\n')

    async def story() -> None:
        other = str(lab.topology.uplink(2).addresses[Family.V4].own.ip)
        for namespace in (lab.client, lab.router):
            seen = Counter([await seen_by_server(namespace, Family.V4) for _ in range(30)])
            assert seen == {str(own): 10, str(second): 10, other: 10}, namespace.name
        for address in (own, second):
            assert await seen_by_server(lab.router, Family.V4, address) == str(address)
        box = Servers()
        await box.listen(lab.router, Family.V4, ECHO_PORT)
        for address in (own, second):
            attempt, connection = await connect(lab, address, namespace=lab.server)
            assert connection is not None, (address, attempt.error)
            connection.close()
        await box.close()

    with_servers(lab, story)


def test_a_client_limited_to_one_of_two_addresses_never_leaves_by_the_other(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    text, _, _ = one_and_two(lab)
    rule = '[[rules]]\nfrom = "{}"\nuplink = "{}"\n{}'
    daemon = start_daemon(lab, text + rule.format(LAN_CLIENT[Family.V4].ip, "one", ""))

    async def story() -> None:
        opened = await open_connections(lab, 3, SERVERS[Family.V4][0])
        limited = rule.format(LAN_CLIENT[Family.V4].ip, "two", 'only = ["two"]\n')
        await asyncio.to_thread(daemon.config.write_text, text + limited, "utf-8")
        await asyncio.to_thread(daemon.reload)
        ends = await asyncio.gather(*(c.ask("hello", 1.0) for c in opened.connections), return_exceptions=True)
        assert "hello" not in ends
        attempt, connection = await connect(lab, SERVERS[Family.V4][0])
        assert connection is not None, attempt.error
        assert await connection.ask("hello")
        connection.close()
        opened.close()

    with_servers(lab, story)


@both
def test_a_gateway_outside_of_every_subnet_is_reached_on_the_link(
    card: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    # As some providers have it: a single address, and a router that is in no network of it.
    for uplink in card.topology.uplinks:
        own = uplink.addresses[family].own
        card.router.ip([f"address del {own} dev {CARD}"])
        card.router.ip([f"address add {own.ip} dev {CARD}{' nodad' if family is Family.V6 else ''}"])
        if family is Family.V4:
            card.provider(uplink.number).ip([f"route replace {own.ip} dev wan"])
    via = card.topology.uplink(1).addresses[family].gateway
    card.router.ip([f"route replace {family.default} via {via} dev {CARD} onlink"])
    text = card_configuration(card, (1, 1, 1))
    if family is Family.V4:
        for uplink in card.topology.uplinks:
            six = uplink.addresses[Family.V6]
            text = text.replace(f'gateway6 = "{six.gateway}"\nsource = "{six.own.ip}"', _source(uplink, family))
    start_daemon(card, text)

    async def story() -> None:
        opened = await open_connections(card, 30, SERVERS[family][0])
        assert [a.error for a in opened.attempts if a.error] == []
        assert shares(a.uplink for a in opened.attempts) == {1: 10, 2: 10, 3: 10}
        opened.close()

    with_servers(card, story)


def _source(uplink: LabUplink, family: Family) -> str:
    return f'source = "{uplink.addresses[family].own.ip}"'


@both
def test_an_address_that_goes_takes_its_own_modem_and_no_other(
    card: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(card, card_configuration(card, (1, 1, 1), (family,)))
    first = card.topology.uplink(1).addresses[family].own

    async def story() -> None:
        opened = await open_connections(card, 12, SERVERS[family][0])
        await asyncio.to_thread(card.router.ip, [f"address del {first} dev {CARD}"])
        await until(lambda: daemon.uplink(1).state == "down")
        healthy = [connection for connection in opened.connections if connection.attempt.uplink != 1]
        assert [await connection.ask("hello") for connection in healthy] == ["hello"] * 8
        second = card.topology.uplink(2).addresses[family].own.ip
        assert await seen_by_server(card.router, family, second) == str(second)
        again = await open_connections(card, 12, SERVERS[family][0])
        assert shares(a.uplink for a in again.attempts) == {2: 6, 3: 6}
        assert spoofed(card) == {1: 0, 2: 0, 3: 0}
        for one in (opened, again):
            one.close()

    with_servers(card, story)


def test_what_comes_in_ipv6_by_the_modem_of_an_ipv4_uplink_is_left_alone(
    card: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    text = card_configuration(card, (1, 1, 1))
    six = card.topology.uplink(2).addresses[Family.V6]
    text = text.replace(f'gateway6 = "{six.gateway}"\nsource = "{six.own.ip}"\n', "")
    start_daemon(card, text)
    shown = ["nft", "list", "chain", "inet", "polywan", "shared_arrival"]
    wait_for(lambda: "ether saddr" in card.router.run(shown).stdout)
    # It is answered as somebody has set it up without polywan.
    card.router.ip([f"route add default via {six.gateway} dev {CARD} table 77"])
    card.router.run(["ip", "-6", "rule", "add", "from", str(six.own.ip), "lookup", "77", "pref", "5000"])

    async def story() -> None:
        box = Servers()
        await box.listen(card.router, Family.V6, ECHO_PORT)
        attempt, connection = await connect(card, six.own.ip, namespace=card.server)
        assert connection is not None, attempt.error
        connection.close()
        await box.close()

    with_servers(card, story)


def test_more_that_the_file_says_of_an_uplink_costs_no_connection(card: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(card, card_configuration(card, (1, 1, 1), (Family.V4,)))

    async def story() -> None:
        opened = await open_connections(card, 12, SERVERS[Family.V4][0])
        await asyncio.to_thread(daemon.config.write_text, card_configuration(card, (1, 1, 1)), "utf-8")
        await asyncio.to_thread(daemon.reload)
        assert [await connection.ask("hello") for connection in opened.connections] == ["hello"] * 12
        opened.close()

    with_servers(card, story)
