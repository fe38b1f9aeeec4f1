"""The real daemon and layers that break one by one: who is chosen, who keeps its connections, what people are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from polywan.api.status import UplinkStatus
from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.dns_server import DnsServer, Zone
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

V4 = [Family.V4]
FAST = 'hold_down = "1s"\nslow_start = "0s"\n'


def settings(lab: Lab, health: str, own: str = "", targets: tuple[str, ...] = ()) -> str:
    """A configuration for the lab; `own` is each uplink's own health, `{gateway}` in it is the provider's address."""
    named = ", ".join(f'"{t}"' for t in targets or map(str, SERVERS[Family.V4]))
    lines = ["[global]", "forwarding = true", "[health]", f"targets = [{named}]", FAST, health]
    for uplink in lab.topology.uplinks:
        lines += [f"[uplinks.{uplink.name}]", f'interface = "{uplink.interface}"']
        if own:
            lines += [f"[uplinks.{uplink.name}.health]", own.format(gateway=uplink.addresses[Family.V4].gateway)]
    return "\n".join(lines) + "\n"


@contextmanager
def resolvers(lab: Lab) -> Iterator[list[DnsServer]]:
    """Each provider's own, at its gateway's address."""
    with ExitStack() as stack:
        servers = []
        for uplink in lab.topology.uplinks:
            sock = lab.provider(uplink.number).socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((str(uplink.addresses[Family.V4].gateway), 53))
            servers.append(stack.enter_context(DnsServer(sock, {"example.com": Zone(["192.0.2.1"])})))
        yield servers


async def seen(daemon: DaemonProcess, number: int, timeout: float = 10.0, **wanted: str) -> UplinkStatus:
    """Await an uplink's state, and words of its reason."""
    found = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                found = await asyncio.to_thread(daemon.uplink, number)
                if all(word in getattr(found, key) for key, word in wanted.items()):
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {timeout:g} s: {wanted}; it is {found and (found.state, found.reason)}")


def test_the_dead_resolver_of_one_provider_moves_new_connections_and_no_old_ones(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2, families=V4)
    toml = settings(lab, 'checks = "dns"\ncheck_interval = "1s"\ntimeout = "500ms"', 'dns_servers = "{gateway}"')

    async def story(servers: list[DnsServer]) -> None:
        daemon = start_daemon(lab, toml)
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as opened:
            old = [c for c in opened.connections if c.attempt.uplink == 1]
            assert old
            servers[0].silent = True
            down = await seen(daemon, 1, state="down", reason="network answers, DNS does not")
            assert "100.64.1.1" in down.reason
            assert down.layers["dns"].state == "broken"
            assert down.layers["gateway"].state == "ok"
            with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as new:
                assert shares(a.uplink for a in new.attempts) == {2: 4}
            assert [await c.ask("still there?") for c in old]
        servers[0].silent = False
        await seen(daemon, 1, state="up")
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as back:
            assert shares(a.uplink for a in back.attempts) == {1: 2, 2: 2}

    with resolvers(lab) as servers:
        with_servers(lab, lambda: story(servers))


def test_a_gateway_that_answers_with_nothing_beyond_it_is_told(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, families=V4)
    daemon = start_daemon(lab, settings(lab, ""))
    lab.blackhole(1)
    asyncio.run(seen(daemon, 1, state="down", reason="gateway answers, nothing beyond it"))


def test_a_gateway_that_is_gone_from_a_link_that_is_up_is_told(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, families=V4)
    daemon = start_daemon(lab, settings(lab, ""))
    lab.provider(1).ip(["link set wan arp off"])
    lab.blackhole(1)
    text = "gateway 100.64.1.1 does not answer ARP although the link is up"
    asyncio.run(seen(daemon, 1, state="down", reason=text))


async def answer_http(lab: Lab, status: dict[str, str]) -> asyncio.Server:
    """Serve a page at the first server's address; `status` is what clients of a network get instead of 204."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        client = writer.get_extra_info("peername")[0]
        line = next((found for network, found in status.items() if client.startswith(network)), "204 No Content")
        writer.write(f"HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    sock = lab.server.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((str(SERVERS[Family.V4][0]), 80))
    return await asyncio.start_server(page, sock=sock)


def test_a_captive_portal_is_named_and_gets_no_new_connections(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, families=V4)
    url = f"http://{SERVERS[Family.V4][0]}/204"
    toml = settings(lab, f'checks = "http"\nhttp_url = "{url}"\ncheck_interval = "1s"')
    portal = {"100.64.2.": "302 Found\r\nLocation: http://login.example/"}

    async def story() -> None:
        pages = await answer_http(lab, portal)
        daemon = start_daemon(lab, toml)
        await seen(daemon, 2, state="down", reason=f"a captive portal answers instead of {url}")
        with closing(await open_connections(lab, 4, SERVERS[Family.V4][0])) as opened:
            assert shares(a.uplink for a in opened.attempts) == {1: 4}
        assert daemon.uplink(1).layers["http"].state == "ok"
        pages.close()

    with_servers(lab, story)


@pytest.mark.parametrize("count", [3, 2])
def test_a_target_that_is_dead_everywhere_is_blamed_and_nobody_goes_down(
    lab_of: BuildLab, start_daemon: StartDaemon, count: int
) -> None:
    lab = lab_of(2, families=V4)
    targets = tuple(map(str, SERVERS[Family.V4][:count]))
    daemon = start_daemon(lab, settings(lab, "", targets=targets))
    rule = f"ip daddr {targets[-1]} icmp type echo-request drop"
    hook = "type filter hook input priority filter; policy accept;"
    lab.server.nft(f"table ip mute {{ chain arriving {{ {hook}\n{rule}\n}}\n}}\n")
    message = f"target {targets[-1]} answers through no uplink: not counted"
    assert daemon.wait_log(lambda text: message in text, 10.0) is not None
    assert message in daemon.status().warnings
    assert not [line.text for line in daemon.log if "is down" in line.text]
    lab.server.nft("delete table ip mute\n")
    assert daemon.wait_log(lambda text: f"target {targets[-1]} answers again" in text, 5.0) is not None
    assert [daemon.uplink(n).state for n in (1, 2)] == ["up", "up"]
