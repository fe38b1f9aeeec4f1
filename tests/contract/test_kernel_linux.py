"""What only the real kernel can show: devices, culprits, threads and lost notifications."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from contract.kernels import LinuxWorld, apply, events_of, linux_world, routes, rules
from contract.values import TABLE, default, rule, sample
from polywan.core.net import FAMILIES, Family, RulePriority, TableId
from polywan.core.plan.plan import AddRule, DelRoute, DelRule, DesiredState, NftBatch, Plan, PutRoute, diff
from polywan.core.routing.routes import Route
from polywan.core.ruleset.model import NftSet, NftTable, declare_texts, in_force, new_texts, replace_text, state_of
from polywan.core.state.events import EventsLost, ForeignStateChanged, LinkChanged, LinkRemoved, OwnStateChanged
from polywan.core.world.observed import DefaultRoute
from polywan.kernel import sysctl
from polywan.kernel.linux import LOUD, LinuxKernel
from support.event_watch import events

pytestmark = pytest.mark.netns


@pytest.fixture
def linux() -> Iterator[LinuxWorld]:
    with linux_world() as world:
        yield world


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def ip(words: str) -> None:
    run("ip", *words.split())


def test_a_renamed_link_leaves_under_its_old_name(linux: LinuxWorld) -> None:
    def rename() -> None:
        ip("link set up1 down")
        ip("link set up1 name isp1")

    events = events_of(linux, rename)
    (position,) = [i for i, event in enumerate(events) if event == LinkRemoved("up1")]
    after = events[position + 1]
    assert isinstance(after, LinkChanged)
    assert after.link.name == "isp1"


@pytest.mark.parametrize("large", [True, False])
def test_what_others_may_change_during_a_large_transaction_is_asked_for_afterwards(
    linux: LinuxWorld, large: bool
) -> None:
    more = "#" * (LOUD + 1) + "\n" if large else ""
    batch = NftBatch(replace_text(sample()) + more)
    assert (ForeignStateChanged("filter") in events_of(linux, lambda: apply(linux, batch))) is large


def test_a_port_that_leaves_its_bridge_is_not_a_removed_link(linux: LinuxWorld) -> None:
    try:
        ip("link add br0 type bridge")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no bridges")
    ip("link set up1 master br0")
    events = events_of(linux, lambda: ip("link set up1 nomaster"))
    assert not any(isinstance(event, LinkRemoved) for event in events)


def test_a_tunnel_is_point_to_point(linux: LinuxWorld) -> None:
    try:
        ip("tuntap add dev tun0 mode tun")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no tun devices")
    link = linux.kernel.observe().links["tun0"]
    assert (link.point_to_point, link.kind) == (True, "tun")


def test_the_loopback_is_not_point_to_point(linux: LinuxWorld) -> None:
    assert not linux.kernel.observe().links["lo"].point_to_point


def test_links_carry_their_byte_counters(linux: LinuxWorld) -> None:
    ip("link set lo up")
    run("ping", "-c1", "-W1", "127.0.0.1")
    assert linux.kernel.observe().links["lo"].tx_bytes >= 84


def test_a_peers_address_is_not_the_links_own(linux: LinuxWorld) -> None:
    ip("addr add 192.0.2.1 peer 192.0.2.2/32 dev up1")
    found = {str(address.ip) for address in linux.kernel.observe().addresses}
    assert "192.0.2.1/32" in found
    assert not any("192.0.2.2" in address for address in found)


def test_a_multipath_default_is_one_default_for_each_next_hop(linux: LinuxWorld) -> None:
    ip("route add default nexthop via 100.64.1.1 dev up1 nexthop via 100.64.2.1 dev up2 weight 3")
    found = {(d.link, str(d.via)) for d in linux.kernel.observe().defaults}
    assert found == {("up1", "100.64.1.1"), ("up2", "100.64.2.1")}


def test_defaults_of_other_tables_are_seen_and_other_types_are_not(linux: LinuxWorld) -> None:
    ip("route add default via 100.64.1.1 table 5000")
    ip("route add unreachable default metric 9")
    (found,) = linux.kernel.observe().defaults
    via = IPv4Address("100.64.1.1")
    assert found == DefaultRoute(family=Family.V4, link="up1", via=via, table=TableId(5000))


def test_an_ipv4_route_by_an_ipv6_neighbour_is_read_back(linux: LinuxWorld) -> None:
    route = Route(family=Family.V4, table=TABLE, metric=10, link="up1", via=IPv6Address("fe80::1"))
    apply(linux, PutRoute(route))
    assert routes(linux) == {route}


def test_rules_and_routes_beyond_one_send_are_all_applied(linux: LinuxWorld) -> None:
    wanted = [replace(rule(Family.V4), priority=RulePriority(7000 + n), mark=(n << 8, 0xFF00)) for n in range(1, 256)]
    apply(linux, *map(AddRule, wanted))
    assert rules(linux) == frozenset(wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_foreign_rule_equal_to_ours_outlives_ours(linux: LinuxWorld, family: Family) -> None:
    ip(f"-{family} rule add pref 6110 lookup 6001")
    apply(linux, AddRule(rule(family)))
    assert rules(linux) == {rule(family)}
    apply(linux, DelRule(rule(family)))
    assert rules(linux) == frozenset()
    (remaining,) = linux.kernel.observe().rules
    assert (remaining.family, remaining.priority, remaining.table) == (family, 6110, 6001)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_foreign_route_equal_to_ours_is_not_deleted(linux: LinuxWorld, family: Family) -> None:
    route = default(family)
    ip(f"-{family} route add default via {route.via} dev up1 table 6001 metric 10")
    apply(linux, DelRoute(route))
    assert [d.table for d in linux.kernel.observe().defaults] == [TABLE]


def test_other_tables_of_others_are_their_own_business(linux: LinuxWorld) -> None:
    apply(linux, NftBatch(replace_text(sample())))
    events = events_of(linux, lambda: run("nft", "add table inet theirs; add chain inet theirs polywan"))
    assert not any(isinstance(event, OwnStateChanged) for event in events)


def test_the_culprit_is_named_with_its_pid(linux: LinuxWorld) -> None:
    apply(linux, NftBatch(replace_text(sample())))
    started: list[int] = []

    def tamper() -> None:
        nft = subprocess.Popen(["nft", "add", "element", "inet", "polywan", "dead", "{ 512 }"])
        nft.wait(5)
        started.append(nft.pid)

    (event,) = [event for event in events_of(linux, tamper) if isinstance(event, OwnStateChanged)]
    assert event == OwnStateChanged("table", f"nft (pid {started[0]})")


def test_changes_made_from_a_worker_thread_are_our_own(linux: LinuxWorld) -> None:
    plan = Plan((NftBatch(replace_text(sample())), AddRule(rule(Family.V4))))

    def act() -> None:
        thread = threading.Thread(target=linux.kernel.apply, args=[plan])
        thread.start()
        thread.join()

    assert not any(isinstance(event, OwnStateChanged) for event in events_of(linux, act))
    assert rules(linux) == {rule(Family.V4)}


def test_a_flood_of_notifications_is_reported_as_lost_and_the_stream_goes_on(linux: LinuxWorld) -> None:
    stranger = LinuxKernel()
    flood = [
        replace(rule(Family.V4), priority=RulePriority(7000), from_=ip_network((0x0A000000 + n, 32)))
        for n in range(6000)
    ]

    async def main() -> list[object]:
        stream = events(linux.kernel)
        assert stranger.apply(Plan(tuple(map(AddRule, flood)))).failures == ()
        found: list[object] = []
        async with asyncio.timeout(10):
            async for event in stream:
                found.append(event)
                if event == EventsLost():
                    linux.add_address("up1", "192.0.2.9/32")
                if event == ForeignStateChanged("address"):
                    break
        return found

    try:
        assert EventsLost() in asyncio.run(main())
    finally:
        stranger.close()


def test_two_listeners_each_receive_every_event(linux: LinuxWorld) -> None:
    async def main() -> list[object]:
        streams = events(linux.kernel), events(linux.kernel)
        linux.add_address("up1", "192.0.2.9/32")
        return [await anext(stream) for stream in streams]

    assert asyncio.run(main()) == [ForeignStateChanged("address")] * 2


def shown(words: str) -> list[dict[str, object]]:
    """What ip(8), an independent witness, shows."""
    argv = ["ip", "-j", *words.split()]
    found: list[dict[str, object]] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return found


def test_ip_shows_a_route_as_it_was_meant(linux: LinuxWorld) -> None:
    via, source = IPv4Address("198.51.100.1"), IPv4Address("100.64.1.2")
    apply(linux, PutRoute(replace(default(Family.V4), via=via, onlink=True, source=source)))
    wanted = {"dst": "default", "gateway": "198.51.100.1", "dev": "up1", "protocol": "200", "prefsrc": "100.64.1.2"}
    (route,) = shown("-4 -N route show table 6001")
    assert route == wanted | {"metric": 10, "flags": ["onlink"]}


def test_ip_shows_a_route_without_next_hop_in_the_scope_of_its_link(linux: LinuxWorld) -> None:
    apply(linux, PutRoute(replace(default(Family.V4), via=None)))
    (route,) = shown("-4 -N route show table 6001")
    assert (route["scope"], "gateway" in route) == ("253", False)


@pytest.mark.parametrize("family", FAMILIES)
def test_ip_shows_a_blackhole_route_as_such(linux: LinuxWorld, family: Family) -> None:
    apply(linux, PutRoute(replace(default(family), link=None, via=None)))
    (route,) = shown(f"-{family} route show table 6001")
    assert (route["type"], route["metric"]) == ("blackhole", 10)


def test_ip_shows_a_rule_as_it_was_meant(linux: LinuxWorld) -> None:
    network = ip_network("100.64.1.0/24")
    meant = replace(rule(Family.V4), mark=(0x100, 0x3F00), from_=network, oif="up1", iif="lo", invert=True)
    apply(linux, AddRule(replace(meant, suppress_prefixlength=0)))
    wanted = {
        "priority": 6110, "not": None, "src": "100.64.1.0", "srclen": 24, "fwmark": "0x100", "fwmask": "0x3f00",
        "iif": "lo", "oif": "up1", "table": "6001", "protocol": "200", "suppress_prefixlen": 0,
    }  # fmt: skip
    (found,) = [r for r in shown("-4 -N rule show") if r["priority"] == 6110]
    assert wanted.items() <= found.items()


def test_ip_shows_where_a_rule_goes(linux: LinuxWorld) -> None:
    apply(linux, AddRule(replace(rule(Family.V6), table=None, goto=RulePriority(7000))))
    (found,) = [r for r in shown("-6 -N rule show") if r["priority"] == 6110]
    assert str(found["goto"]) == "7000"


def test_a_large_list_of_our_own_loses_no_event_and_has_the_table_read_again(linux: LinuxWorld) -> None:
    apply(linux, NftBatch(replace_text(sample())))
    prefixes = frozenset(f"10.{n >> 8}.{n & 255}.0/24" for n in range(20_000))
    large = next(declare_texts("list_4_aaaaaaaa", NftSet("type ipv4_addr; flags interval;", prefixes), most=1 << 20))
    events = events_of(linux, lambda: apply(linux, NftBatch(large)))
    assert EventsLost() not in events
    assert [event for event in events if isinstance(event, OwnStateChanged)] == [OwnStateChanged("table")]


def test_what_others_do_after_a_large_list_is_still_seen(linux: LinuxWorld) -> None:
    apply(linux, NftBatch(replace_text(sample())))
    prefixes = frozenset(f"10.0.{n}.{m}/32" for n in range(100) for m in range(100))
    large = next(declare_texts("list_4_aaaaaaaa", NftSet("type ipv4_addr; flags interval;", prefixes), most=1 << 20))

    def act() -> None:
        apply(linux, NftBatch(large))
        linux.flush_ruleset()

    touched = [event for event in events_of(linux, act) if isinstance(event, OwnStateChanged)]
    assert any(event.by.startswith("nft (pid ") for event in touched)


def test_settings_of_devices_are_those_of_proc(linux: LinuxWorld) -> None:
    paths = [
        f"net/ipv{family}/conf/up1/{setting}"
        for family, settings in (
            (4, ("rp_filter", "arp_announce", "arp_ignore", "ignore_routes_with_linkdown")),
            (6, ("accept_ra", "use_oif_addrs_only", "ignore_routes_with_linkdown")),
        )
        for setting in settings
    ]
    for path in paths:
        old = sysctl.read(path)
        assert linux.kernel.read(paths).sysctls[path] == old
        sysctl.write(path, "0" if old == "1" else "1")
        assert linux.kernel.read(paths).sysctls == {path: sysctl.read(path) for path in paths}


def large(table: NftTable) -> tuple[str, str]:
    """Return both halves of a table that is large enough to be made in two."""
    listed = NftSet("type ipv4_addr", frozenset(f"10.1.{n >> 8}.{n & 255}" for n in range(2000)))
    return new_texts(replace(table, sets={**table.sets, "list_4_large": listed}))


@pytest.mark.parametrize("halves", [new_texts, large], ids=["small", "large"])
def test_a_new_table_is_whole_whether_it_is_made_in_one_or_in_two(
    linux: LinuxWorld, halves: Callable[[NftTable], tuple[str, str]]
) -> None:
    inert, hooked = halves(sample())
    report = linux.kernel.apply(Plan((AddRule(rule(Family.V4)), NftBatch(inert + hooked, len(inert)))))
    assert report.failures == ()
    nft = linux.kernel.read(()).nft
    assert nft is not None
    assert (nft.chains, nft.maps) == (state_of(sample()).chains, state_of(sample()).maps)


def test_a_table_of_which_no_packet_meets_anything_is_not_in_force(linux: LinuxWorld) -> None:
    apply(linux, NftBatch(new_texts(sample())[0]))
    actual = linux.kernel.read(())
    assert actual.nft is not None
    assert not in_force(actual.nft)
    (op,) = diff(DesiredState(nft=sample()), actual).ops
    apply(linux, op)
    assert linux.kernel.read(()).nft == state_of(sample())


@pytest.mark.parametrize("halves", [new_texts, large], ids=["small", "large"])
def test_a_new_table_that_is_refused_fails_once_and_leaves_nothing(
    linux: LinuxWorld, halves: Callable[[NftTable], tuple[str, str]]
) -> None:
    inert, hooked = halves(sample())
    batch = NftBatch(f"{inert}nonsense\n{hooked}", len(inert) + len("nonsense\n"))
    report = linux.kernel.apply(Plan((AddRule(rule(Family.V4)), batch)))
    assert [failure.op for failure in report.failures] == [batch]
    assert linux.kernel.read(()).nft is None
    assert rules(linux) == {rule(Family.V4)}
