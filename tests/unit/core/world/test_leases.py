"""Routers from the lease files of DHCP clients: what holds is found, what is over or makes no sense is not."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from polywan.config import Config
from polywan.core.net import Family
from polywan.core.plan.cautions import cautions
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import resolve
from polywan.core.world import leases
from polywan.core.world.leases import Lease
from polywan.core.world.observed import Observed
from polywan.core.world.paths import NoPath, reach
from polywan.core.world.paths import Path as Egress
from polywan.daemon.lookups.leases import added
from support.engine_world import config, world

ROUTER = IPv4Address("100.64.2.1")
DHCLIENT = """\
lease {
  interface "wan2";
  fixed-address 100.64.2.2;
  option subnet-mask 255.255.255.0;
  option routers 100.64.2.1, 100.64.2.254;
  option dhcp-lease-time 120;
  renew 4 2026/11/26 08:00:00;
  expire %s;
}
"""
ENDLESS = DHCLIENT % "never"
NETWORKD = "# This is private data. Do not parse.\nADDRESS=100.64.2.2\nNETMASK=255.255.255.0\nROUTER=100.64.2.1\n"


def message(*options: bytes, cookie: bytes = b"\x63\x82\x53\x63") -> bytes:
    head = struct.pack("!BBBBIHH", 2, 1, 6, 0, 7, 0, 0) + bytes(4) + IPv4Address("100.64.2.2").packed
    return head.ljust(236, b"\0") + cookie + b"".join(options) + b"\xff"


def option(kind: int, data: bytes) -> bytes:
    return bytes((kind, len(data))) + data


MINUTES = option(51, struct.pack("!I", 120))
ROUTERS = option(3, ROUTER.packed)


def test_a_lease_of_dhclient_is_read() -> None:
    assert leases.dhclient(DHCLIENT % "4 2026/11/26 09:00:00") == [
        Lease(link="wan2", address=IPv4Address("100.64.2.2"), router=ROUTER, expires=1795683600.0, program="dhclient")
    ]


@pytest.mark.parametrize(
    ("words", "expires"),
    [("never", None), ("epoch 1795683600", 1795683600.0), ("4 2026/11/26 09:00", 0.0), ("some day", 0.0)],
)
def test_an_end_of_time_is_understood_or_long_ago(words: str, expires: float | None) -> None:
    (lease,) = leases.dhclient(DHCLIENT % words)
    assert lease.expires == expires


@pytest.mark.parametrize("key", ["rfc3442-classless-static-routes", "classless-static-routes"])
def test_classless_routes_go_before_routers(key: str) -> None:
    text = ENDLESS.replace("  renew", f"  option {key} 24,10,0,0,100,64,2,7,0,100,64,2,9;\n  renew")
    (lease,) = leases.dhclient(text)
    assert str(lease.router) == "100.64.2.9"
    assert leases.dhclient(ENDLESS.replace("  renew", f"  option {key} 24,10,0,0,100,64,2,7;\n  renew")) == []


def test_a_lease_of_dhcpcd_is_the_servers_message() -> None:
    (lease,) = leases.dhcpcd(message(b"\0", ROUTERS, MINUTES), "wan2", 1000.0)
    assert lease == Lease(
        link="wan2", address=IPv4Address("100.64.2.2"), router=ROUTER, expires=1120.0, program="dhcpcd"
    )


def test_dhcpcds_classless_routes_go_before_routers_and_an_endless_lease_never_ends() -> None:
    routes = option(121, bytes((8, 10, 100, 64, 2, 7, 0, 100, 64, 2, 9)))
    (lease,) = leases.dhcpcd(message(ROUTERS, routes, option(51, b"\xff" * 4)), "wan2", 1000.0)
    assert (str(lease.router), lease.expires) == ("100.64.2.9", None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(ROUTERS),
        message(MINUTES),
        message(ROUTERS, MINUTES, cookie=b"abcd"),
        message(option(3, b"\1"), MINUTES),
        message(option(3, bytes(4)), MINUTES),
        message(ROUTERS, MINUTES)[:250],
    ],
)
def test_half_a_message_is_no_lease(data: bytes) -> None:
    assert leases.dhcpcd(data, "wan2", 0.0) == []


def test_a_lease_of_networkd_is_read_with_its_routes() -> None:
    (lease,) = leases.key_values(NETWORKD, "wan2", "systemd-networkd")
    assert (lease.router, lease.expires) == (ROUTER, None)
    routed = NETWORKD + "CLASSLESS_ROUTES=10.0.0.0/8,100.64.2.7 0.0.0.0/0,100.64.2.9\n"
    (lease,) = leases.key_values(routed, "wan2", "systemd-networkd")
    assert str(lease.router) == "100.64.2.9"
    assert leases.key_values("ADDRESS=100.64.2.2\n", "wan2", "NetworkManager") == []


@pytest.mark.parametrize(
    ("change", "held"),
    [
        ({}, True),
        ({"expires": None}, True),
        ({"link": ""}, True),
        ({"expires": 100.0}, False),
        ({"link": "wan7"}, False),
        ({"address": IPv4Address("100.64.9.9")}, False),
    ],
)
def test_a_lease_holds_in_time_for_the_links_own_address(change: dict[str, object], held: bool) -> None:
    lease = Lease(link="wan2", address=IPv4Address("100.64.2.2"), router=ROUTER, expires=101.0, program="dhclient")
    lease = replace(lease, **change)  # type: ignore[arg-type]  # whatever the case says
    found = leases.valid([lease], "wan2", [IPv4Address("100.64.2.2")], 100.0)
    assert (found is lease) is held


def refused() -> Observed:
    """The second link's default route was refused."""
    two = world(2, [Family.V4])
    return replace(two, defaults=two.defaults[:1])


def put(root: Path, path: str, content: str | bytes) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("path", "content", "program"),
    [
        ("var/lib/dhcp/dhclient.wan2.leases", ENDLESS, "dhclient"),
        ("var/lib/dhcp/dhclient.leases", ENDLESS, "dhclient"),
        ("var/lib/dhclient/dhclient-wan2.lease", ENDLESS, "dhclient"),
        ("var/lib/NetworkManager/dhclient-3f-wan2.lease", ENDLESS, "dhclient"),
        ("var/lib/dhcpcd/wan2.lease", message(ROUTERS, MINUTES), "dhcpcd"),
        ("var/lib/dhcpcd/wan2-home.lease", message(ROUTERS, MINUTES), "dhcpcd"),
        ("run/systemd/netif/leases/12", NETWORKD, "systemd-networkd"),
        ("var/lib/NetworkManager/internal-3f-wan2.lease", NETWORKD, "NetworkManager"),
    ],
)
def test_the_router_is_found_where_each_client_keeps_it_and_the_cure_is_told(
    tmp_path: Path, path: str, content: str | bytes, program: str
) -> None:
    put(tmp_path, path, content)
    configuration, observed = config(2), added(refused(), config(2), tmp_path)
    reachable = reach(resolve(configuration, {}), observed, {})
    reached = reachable["u2", Family.V4]
    assert isinstance(reached, Egress)
    assert (reached.via, reached.onlink) == (ROUTER, False)
    (line,) = cautions(resolve(configuration, {}), observed, ActualState(), reachable)
    assert line.startswith(f"uplink u2: no default route through wan2, although {program} got the router 100.64.2.1: ")
    assert leases.CURES[program].format(metric=102, link="wan2") in line


def test_without_a_lease_the_router_stays_unknown(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dhcp/dhclient.wan2.leases", ENDLESS.replace("2.2;", "2.3;"))
    observed = added(refused(), config(2), tmp_path)
    assert isinstance(reach(resolve(config(2), {}), observed, {})["u2", Family.V4], NoPath)


def test_what_was_remembered_goes_before_a_lease(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dhcp/dhclient.wan2.leases", ENDLESS)
    observed = added(refused(), config(2), tmp_path)
    reached = reach(resolve(config(2), {}), observed, {("u2", Family.V4): ip_address("100.64.2.9")})["u2", Family.V4]
    assert isinstance(reached, Egress)
    assert str(reached.via) == "100.64.2.9"


def test_a_default_route_or_the_file_makes_leases_unasked(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dhcp/dhclient.wan2.leases", ENDLESS)
    assert added(world(2), config(2), tmp_path).leases == {}
    configuration = Config.model_validate({"uplinks": {"u2": {"interface": "wan2", "gateway": "100.64.2.9"}}})
    assert added(refused(), configuration, tmp_path).leases == {}


def test_a_lease_says_nothing_once_the_address_has_changed(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dhcp/dhclient.wan2.leases", ENDLESS)
    observed = added(refused(), config(2), tmp_path)
    moved = replace(observed, addresses=observed.addresses[:1])
    assert isinstance(reach(resolve(config(2), {}), moved, {})["u2", Family.V4], NoPath)


@pytest.mark.parametrize("name", ["wan2.lease", "wan2-.lease"])
def test_folders_pipes_and_other_odd_files_are_passed_over(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "var/lib/dhcpcd"
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    (tmp_path / "var/lib/dhcp").mkdir()
    (tmp_path / "var/lib/dhcp/dhclient.wan2.leases").mkdir()
    assert added(refused(), config(2), tmp_path).leases == {}
