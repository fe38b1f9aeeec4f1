"""Uplinks that live by DHCP and router advertisements: real servers, and the clients that distributions bring."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.recipe import PROVIDER_TABLE
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import Attempt, Connection, Opened, open_connections, read_line, shares
from support.connections import answers, endings
from support.dhcp import CLIENTS, Provider, client, renew
from support.netns import until, with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

pytestmark = pytest.mark.needs("dnsmasq")

SERVER: Final = SERVERS[Family.V4][0]
HOST, OTHER_HOST = "100.64.1.50", "100.64.1.60"
ROUTER, OTHER_ROUTER = "100.64.1.1", "100.64.1.254"
LEASED: Final = 30.0
"""Seconds within which a client has another lease: it may ask some times in vain, and waits in between."""

KINDS: Final = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in CLIENTS]
FOLLOWING: Final = [kind for kind in KINDS if kind.values != ("dhclient",)]
"""Clients that take a new router from a renewed lease; dhclient's script looks only when the address is another one."""


@pytest.fixture
def two(lab_of: BuildLab) -> Lab:
    """Two uplinks, the first without an address; its provider answers as two routers."""
    lab = lab_of(2, families=(Family.V4,))
    lab.router.ip(["address flush dev wan1"])
    # The other router outlives the first one's address.
    lab.provider(1).sysctl({"ipv4/conf/all/promote_secondaries": 1})
    lab.provider(1).ip([f"address add {OTHER_ROUTER}/24 dev wan"])
    return lab


@pytest.fixture
def provider(two: Lab) -> Iterator[Provider]:
    provider = Provider(two, 1)
    provider.lease(HOST, ROUTER)
    yield provider
    provider.close()


async def has(daemon: DaemonProcess, address: str, router: str) -> None:
    """Wait until the first uplink serves with that lease."""

    def leased() -> bool:
        seen = daemon.uplink(1)
        return (seen.state, seen.address, seen.gateway) == ("up", address, router)

    await until(leased, LEASED, 0.05)


def has_granted(provider: Provider, times: int) -> bool:
    return provider.granted >= times


def repairs(daemon: DaemonProcess) -> list[str]:
    return [*daemon.status().drift, *(line.text for line in list(daemon.log) if "drift." in line.text)]


@pytest.mark.parametrize("kind", KINDS)
def test_renewals_without_a_change_write_nothing(
    two: Lab, provider: Provider, start_daemon: StartDaemon, kind: str
) -> None:
    with client(two.router, kind, "wan1") as process:
        daemon = start_daemon(two, configuration(two.topology, (1, 1)))

        async def story() -> None:
            await has(daemon, HOST, ROUTER)
            generation, granted = daemon.status().generation, provider.granted
            renew(process, kind)
            # udhcpc begins anew when it is asked again before it is done; the others renew by themselves.
            await until(partial(has_granted, provider, granted + (1 if kind == "udhcpc" else 2)), LEASED, 0.05)
            # What a renewal changes is read within a moment.
            await asyncio.sleep(0.5)
            assert daemon.status().generation == generation

        with_servers(two, story)
        assert repairs(daemon) == []


@pytest.mark.parametrize("kind", FOLLOWING)
def test_a_lease_with_another_router_moves_no_connection(
    two: Lab, provider: Provider, start_daemon: StartDaemon, kind: str
) -> None:
    with client(two.router, kind, "wan1") as process:
        daemon = start_daemon(two, configuration(two.topology, (1, 1)))

        async def story() -> None:
            await has(daemon, HOST, ROUTER)
            with closing(await open_connections(two, 10, SERVER)) as opened:
                assert shares(a.uplink for a in opened.attempts) == {1: 5, 2: 5}
                provider.lease(HOST, OTHER_ROUTER)
                renew(process, kind)
                await has(daemon, HOST, OTHER_ROUTER)
                two.provider(1).ip([f"address del {ROUTER}/24 dev wan"])
                assert await answers(opened, {1, 2}) == 10
                with closing(await open_connections(two, 10, SERVER)) as later:
                    assert shares(a.uplink for a in later.attempts) == {1: 5, 2: 5}

        with_servers(two, story)
        assert repairs(daemon) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_with_another_address_frees_the_connections_of_the_old_one(
    two: Lab, provider: Provider, start_daemon: StartDaemon, kind: str
) -> None:
    with client(two.router, kind, "wan1") as process:
        daemon = start_daemon(two, configuration(two.topology, (1, 1)))

        async def story() -> None:
            await has(daemon, HOST, ROUTER)
            with closing(await open_connections(two, 10, SERVER)) as opened:
                assert shares(a.uplink for a in opened.attempts) == {1: 5, 2: 5}
                provider.lease(OTHER_HOST, OTHER_ROUTER)
                renew(process, kind)
                assert await endings(opened, 1, LEASED) == {"ECONNRESET": 5}
                await has(daemon, OTHER_HOST, OTHER_ROUTER)
                with closing(await open_connections(two, 10, SERVER)) as later:
                    assert shares(a.uplink for a in later.attempts) == {1: 5, 2: 5}
                assert await answers(opened, {2}) == 5

        with_servers(two, story)
        assert repairs(daemon) == []


OLD, NEW = IPv6Network("2001:db8:aaaa:1::/64"), IPv6Network("2001:db8:bbbb:1::/64")


@pytest.fixture
def advertised(lab_of: BuildLab) -> Iterator[Lab]:
    """Two uplinks; the first has its address and router by advertisements, of a prefix that is about to change."""
    lab = lab_of(2)
    far, static = lab.provider(1), lab.topology.uplink(1).addresses[Family.V6]
    for prefix in (OLD, NEW):
        lab.server.ip([f"route add {prefix} via 2001:db8:ff:1::1 dev x1"])
        far.nft(f"insert rule {PROVIDER_TABLE} arriving ip6 saddr {prefix} accept\n")
    far.ip([f"address del {static.gateway}/64 dev wan", f"address add {OLD[1]}/64 dev wan nodad"])
    lab.router.ip(["link set wan1 addrgenmode eui64", f"address del {static.own} dev wan1"])
    lab.router.ip([f"route del default via {static.gateway} dev wan1"])
    provider = Provider(lab, 1)
    provider.advertise()
    yield lab
    provider.close()


async def opened_from(lab: Lab, stack: ExitStack) -> tuple[IPv6Address, Connection]:
    """Open a connection; return which address the server saw."""
    target = SERVERS[Family.V6][0]
    sock = stack.enter_context(closing(lab.client.socket(SOCKET_FAMILY[Family.V6], socket.SOCK_STREAM)))
    await asyncio.get_running_loop().sock_connect(sock, (str(target), ECHO_PORT))
    seen = IPv6Address(await read_line(sock))
    attempt = Attempt(family=Family.V6, started=0.0, connected=0.0, ended=0.0, uplink=1, error="")
    return seen, Connection(attempt, sock)


def test_after_a_change_of_prefix_new_connections_have_the_new_one_and_old_ones_last_as_long_as_their_address(
    advertised: Lab, start_daemon: StartDaemon
) -> None:
    first = '[policies.default]\ntiers = [["isp1"], ["isp2"]]\n'
    daemon = start_daemon(advertised, configuration(advertised.topology, (1, 1)) + first)

    async def serves_by(prefix: IPv6Network) -> str:
        def served() -> bool:
            seen = daemon.uplink(1)
            return seen.state == "up" and IPv6Address(seen.address6 or "::") in prefix

        await until(served, LEASED, 0.05)
        return str(daemon.uplink(1).address6)

    async def story() -> None:
        with ExitStack() as stack:
            before = await serves_by(OLD)
            seen, early = await opened_from(advertised, stack)
            assert str(seen) == before
            # The provider still routes the old prefix, for those who use it.
            exchanged = [f"address add {NEW[1]}/64 dev wan nodad", f"address del {OLD[1]}/64 dev wan"]
            advertised.provider(1).ip([*exchanged, f"route add {OLD} dev wan"])
            after = await serves_by(NEW)
            seen, late = await opened_from(advertised, stack)
            assert str(seen) == after
            assert await early.ask("the old address is deprecated, and in use") != ""
            # Its lifetime is over.
            advertised.router.ip([f"address del {before}/64 dev wan1"])
            assert await endings(Opened([early.attempt], [early]), 1, 5.0) == {"ECONNRESET": 1}
            assert await late.ask("the new address") == "the new address"

    with_servers(advertised, story)
    assert repairs(daemon) == []
