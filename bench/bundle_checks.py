"""Behaviour of a balancing router, asked with real packets: one question, one lab, yes or no.

The router is polywan's, by the real daemon, or one that the caller furnishes (`bundle.py`). A check that asks what
is left without a daemon kills it first.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fcntl import ioctl
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

from polywan.core.errors import PolywanError
from polywan.core.net import Family
from polywan.lab.daemon import Daemon
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab, build
from polywan.lab.recipe import bring_up
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY, Servers, serve
from polywan.lab.topology import LAN_ROUTER, SERVERS
from polywan.lab.traffic import connect, exchange, open_connections, read_line, shares, udp_flows, udp_socket

Furnish: TypeAlias = Callable[[Lab, int], None]
"""Makes a lab's router balance; the number is the least MTU of the way out."""


@dataclass(slots=True)
class World:
    """A lab whose router balances, by the bundle or by the real daemon."""

    lab: Lab
    daemon: Daemon | None
    servers: Servers = field(default_factory=Servers)

    async def shares(self, number: int, family: Family, *, router: bool = False, patience: float = 3.0) -> list[int]:
        """Open that many connections one after another; return how many each uplink carried."""
        seen: list[int | None] = []
        for _ in range(number):
            where = self.lab.router if router else None
            attempt, connection = await connect(self.lab, SERVERS[family][0], namespace=where, patience=patience)
            seen.append(attempt.uplink)
            if connection is not None:
                connection.close()
        counts = shares(seen)
        return [counts[uplink.number] for uplink in self.lab.topology.uplinks]

    def orphan(self) -> None:
        """From here on nobody mends anything."""
        if self.daemon is not None:
            self.daemon.kill()


Check: TypeAlias = Callable[[World, Family], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the table: `prepare` changes the lab before the router is made to balance."""

    text: str
    check: Check
    uplinks: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Lab], None] = lambda _: None
    mtu: int = 1500


async def lan_shares(world: World, family: Family) -> bool:
    number = len(world.lab.topology.uplinks)
    each = await world.shares(4 * number, family)
    return each == [4] * number and not any(seen.spoofed for seen in world.lab.all_seen().values())


async def own_shares(world: World, family: Family) -> bool:
    return await world.shares(12, family, router=True) == [4, 4, 4]


async def bound_to_device(world: World, family: Family) -> bool:
    for uplink in world.lab.topology.uplinks * 2:
        attempt, connection = await connect(
            world.lab, SERVERS[family][0], namespace=world.lab.router, device=uplink.interface, patience=2.0
        )
        if connection is None or attempt.uplink != uplink.number:
            return False
        connection.close()
    return True


async def bound_to_address(world: World, family: Family) -> bool:
    for uplink in world.lab.topology.uplinks * 2:
        with closing(world.lab.router.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)) as sock:
            sock.bind((str(uplink.addresses[family].own.ip), 0))
            async with asyncio.timeout(2.0):
                await asyncio.get_running_loop().sock_connect(sock, (str(SERVERS[family][0]), ECHO_PORT))
                if world.lab.topology.number_of(ip_address(await read_line(sock))) != uplink.number:
                    return False
    return True


async def _from_outside(world: World, family: Family, port: int) -> bool:
    for uplink in world.lab.topology.uplinks:
        to = uplink.addresses[family].own.ip
        _, connection = await connect(world.lab, to, port=port, namespace=world.lab.server, patience=2.0)
        if connection is None or not await connection.ask("still there?"):
            return False
        connection.close()
    return not any(seen.spoofed for seen in world.lab.all_seen().values())


async def inbound(world: World, family: Family) -> bool:
    await world.servers.listen(world.lab.router, family, ECHO_PORT)
    return await _from_outside(world, family, ECHO_PORT)


async def port_forward(world: World, family: Family) -> bool:
    world.lab.forward_port(8080, ECHO_PORT)
    await world.servers.listen(world.lab.client, family, ECHO_PORT)
    return await _from_outside(world, family, 8080)


def ping(lab: Lab, target: object, *options: str) -> str:
    """Ping once from the client; each process is a connection of its own."""
    return lab.client.run(["ping", "-n", "-c1", "-W1", *options, str(target)], check=False).stdout


async def traceroute(world: World, family: Family) -> bool:
    router, server = str(LAN_ROUTER[family].ip), SERVERS[family][0]
    for _ in world.lab.topology.uplinks:
        hops = [ping(world.lab, server, "-t", str(hop)) for hop in (1, 2, 3)]
        if f"From {router} " not in hops[0] or "From " not in hops[1] or router in hops[1]:
            return False
        if f"bytes from {server}" not in hops[2]:
            return False
    return True


def _narrow(lab: Lab) -> None:
    """Make the way by uplink 3 narrower, at both ends."""
    lab.router.ip(["link set wan3 mtu 1400"])
    lab.provider(3).ip(["link set wan mtu 1400"])


def _large(world: World, family: Family) -> tuple[int, int]:
    """Send 1450 bytes to each server, by each uplink in turn; count echoes and correct complaints."""
    size = str(1450 - (28 if family is Family.V4 else 48))
    said = [ping(world.lab, server, "-M", "do", "-s", size) for server in SERVERS[family]]
    return sum("bytes from" in text for text in said), sum("1400" in text for text in said)


async def narrow_told(world: World, family: Family) -> bool:
    return _large(world, family)[1] >= 1


async def wide_stay_wide(world: World, family: Family) -> bool:
    return _large(world, family)[0] == 2


async def told_outside(world: World, family: Family) -> bool:
    """A reply too large for the LAN: its sender must learn so, whichever uplink it came by."""
    world.lab.router.ip(["link set lan0 mtu 1300"])
    payload = "x" * (1295 - (28 if family is Family.V4 else 48))
    for _ in world.lab.topology.uplinks:
        with udp_socket(world.lab, SERVERS[family][0]) as sock:
            try:
                await exchange(world.lab, sock, payload, patience=0.3)
            except TimeoutError:
                continue
            return False
    owns = [str(uplink.addresses[family].own.ip) for uplink in world.lab.topology.uplinks]
    told = [world.lab.server.run(["ip", "route", "get", own]).stdout for own in owns]
    return all("mtu 1300" in text for text in told)


async def modem(world: World, family: Family) -> bool:
    gateways = [uplink.addresses[family].gateway for uplink in world.lab.topology.uplinks]
    return all("bytes from" in ping(world.lab, gateway) for gateway in gateways * 2)


async def unknown_neighbour(world: World, family: Family) -> bool:
    for uplink in world.lab.topology.uplinks:
        world.lab.router.run(["ip", f"-{family:d}", "neighbour", "flush", "dev", uplink.interface])
    # Nobody repeats a datagram: the first one has to arrive.
    return shares(await udp_flows(world.lab, 3, SERVERS[family][0])) == {1: 1, 2: 1, 3: 1}


async def specific_route(world: World, family: Family) -> bool:
    via = world.lab.topology.uplink(3).addresses[family].gateway
    world.lab.router.ip([f"route add {SERVERS[family][0]} via {via} dev wan3"])
    return await world.shares(6, family) == [0, 0, 6]


async def bits_of_others(world: World, family: Family) -> bool:
    world.lab.router.nft(
        "table inet other { chain pre { type filter hook prerouting priority -190; policy accept;\n"
        "ct state new ct mark set 0x40000001\nmeta mark set 0x40000000\n}\n}\n"
    )
    opened = await open_connections(world.lab, 6, SERVERS[family][0])
    with closing(opened):
        for connection in opened.connections:
            await connection.ask("hello")
        listed = world.lab.router.run(["conntrack", "-L", "-p", "tcp", "-f", f"ipv{family:d}"]).stdout
    marks = [int(word.partition("=")[2]) for word in listed.split() if word.startswith("mark=")]
    return sum(mark & 0x40000001 == 0x40000001 and mark & 0x3F00 != 0 for mark in marks) == 6


async def orphaned(world: World, family: Family) -> bool:
    world.orphan()
    return await lan_shares(world, family)


async def new_address(world: World, family: Family) -> bool:
    """The provider gives another address, and nobody has told the tables yet."""
    world.orphan()
    own = world.lab.topology.uplink(2).addresses[family].own
    other = own.ip + 75
    world.lab.router.sysctl({"ipv4/conf/wan2/promote_secondaries": 1})
    nodad = " nodad" if family is Family.V6 else ""
    length = own.network.prefixlen
    world.lab.router.ip([f"address add {other}/{length} dev wan2{nodad}", f"address del {own} dev wan2"])
    # An access network learns who has an address; it does not remember for long who had it.
    world.lab.provider(2).run(["ip", f"-{family:d}", "neighbour", "flush", "dev", "wan"])
    return await world.shares(6, family, patience=1.5) == [2, 2, 2]


async def flushed(world: World, family: Family) -> bool:
    world.orphan()
    world.lab.router.run(["nft", "flush", "ruleset"])
    return sum(await world.shares(3, family, router=True, patience=1.5)) == 3


async def carrier_told(world: World, family: Family) -> bool:
    world.orphan()
    world.lab.cut(2)
    errors = [(await connect(world.lab, SERVERS[family][0], patience=1.5))[0].error for _ in range(6)]
    # IPv6 clients may take a refusal as a reason to try once more; that is told, too.
    return "timeout" not in errors


def _headerless(lab: Lab) -> None:
    """Replace the cable of uplink 3 by a pair of tun devices: packets without a link-layer header, as on PPP."""
    uplink = lab.topology.uplink(3)
    lab.router.ip(["link del wan3"])
    ends = (_tun(lab.router, "wan3"), _tun(lab.provider(3), "wan"))
    lab.router.ip(bring_up(uplink))
    lines = ["link set dev wan addrgenmode none up"]
    for family, at in uplink.addresses.items():
        lines.append(f"address add {at.gateway} peer {at.own.ip} dev wan{' nodad' if family is Family.V6 else ''}")
    lab.provider(3).ip(lines)
    threading.Thread(target=_shuttle, args=ends, daemon=True).start()


def _tun(namespace: Namespace, name: str) -> int:
    with namespace.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR)
        ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
        return tun


def _shuttle(one: int, other: int) -> None:
    to = {one: other, other: one}
    try:
        while True:
            for ready in select.select([one, other], [], [])[0]:
                packet = os.read(ready, 65536)
                if packet[0] >> 4 in (4, 6):  # what else would not pass a link without header
                    os.write(to[ready], packet)
    except OSError:  # the lab is gone
        os.close(one)
        os.close(other)


QUESTIONS: Final[dict[str, Question]] = {
    "lan": Question("connections of the LAN in exact turns, each with its uplink's address", lan_shares),
    "own": Question("the box's own connections in turns", own_shares),
    "device": Question("a socket bound to a device leaves by it", bound_to_device),
    "address": Question("a socket bound to an address leaves by its uplink", bound_to_address),
    "inbound": Question("a connection from outside is answered the way it came", inbound),
    "forward": Question("a port forward on every uplink", port_forward),
    "route": Question("a specific route by an uplink wins", specific_route),
    "modem": Question("gateways and modems in uplinks' own networks", modem),
    "bits": Question("the bits of others in the connection mark", bits_of_others),
    "trace": Question("traceroute shows every hop", traceroute),
    "narrow": Question("a narrow uplink's MTU is told to the LAN", narrow_told, prepare=_narrow),
    "wide": Question("beside a narrow uplink, wide ones keep their MTU", wide_stay_wide, prepare=_narrow),
    "narrow-least": Question("as above, the bundle's MTU the least: told", narrow_told, prepare=_narrow, mtu=1400),
    "wide-least": Question("as above, the bundle's MTU the least: wide", wide_stay_wide, prepare=_narrow, mtu=1400),
    "outside": Question("a reply too large for the LAN: its sender is told", told_outside),
    "p2p": Question("point-to-point uplinks without a gateway", lan_shares, options={"point_to_point": (2, 3)}),
    "ppp": Question(
        "an uplink without link-layer header (PPP)", lan_shares, options={"point_to_point": (3,)}, prepare=_headerless
    ),
    "twins": Question("two uplinks with one gateway and one subnet", lan_shares, uplinks=2, options={"twins": True}),
    "neighbour": Question("gateway not resolved yet: the first datagram arrives", unknown_neighbour),
    "orphan": Question("no daemon: turns go on", orphaned),
    "renumber": Question("no daemon: an uplink's address changes", new_address),
    "carrier": Question("no daemon: a lost carrier is told, not silent", carrier_told),
    "flush": Question("no daemon: rules flushed, the box still gets out", flushed),
}

_homes = count(1)


@contextmanager
def balanced(lab: Lab, question: Question, furnish: Furnish | None) -> Iterator[World]:
    """Make the lab's router balance: by the daemon, or as the caller says."""
    question.prepare(lab)
    if furnish is not None:
        furnish(lab, question.mtu)
        yield World(lab, None)
        return
    text = configuration(lab.topology, (1,) * len(lab.topology.uplinks))
    daemon = Daemon(lab.router, text, Path(f"/run/polywan-bundle-{next(_homes)}"))
    try:
        daemon.start()
        yield World(lab, daemon)
    finally:
        daemon.stop()


async def _answer(world: World, check: Check, family: Family) -> bool:
    servers = await serve(world.lab)
    try:
        _know_gateways(world.lab)
        async with asyncio.timeout(40):
            return await check(world, family)
    finally:
        await world.servers.close()
        await servers.close()


def _know_gateways(lab: Lab) -> None:
    """Let the router find its gateways' link-layer addresses, as a daemon's probes do."""
    for uplink in lab.topology.uplinks:
        for at in uplink.addresses.values():
            lab.router.run(["ping", "-n", "-c1", "-W1", "-I", uplink.interface, str(at.gateway)], check=False)


def ask(name: str, family: Family, furnish: Furnish | None) -> bool:
    """Answer one question in a lab of its own; what breaks on the way counts as no, and is told."""
    question = QUESTIONS[name]
    try:
        with build(question.uplinks, **question.options) as lab, balanced(lab, question, furnish) as world:
            return asyncio.run(_answer(world, question.check, family))
    except (PolywanError, OSError) as error:
        who = "portable" if furnish is None else "the other"
        print(f"{name}, IPv{family:d}, {who}: {error!r:.300}", file=sys.stderr)
        return False
