"""What every kernel keeps of tracked connections: counted by mark, listed, and cut where no reset can help."""

from __future__ import annotations

from collections import Counter

import pytest

from contract.entries import Entry
from contract.kernels import World
from contract.values import MASK
from polywan.core.net import FAMILIES, Family


def test_connections_are_counted_by_mark(world: World) -> None:
    marks = [(0x100, Family.V4), (0x8100, Family.V4), (0x200, Family.V6), (0xC000, Family.V4)]
    world.track([Entry(mark=mark, port=port, family=family) for port, (mark, family) in enumerate(marks, 1)])
    assert world.kernel.connections(MASK) == {0x100: 2, 0x200: 1, 0: 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_takes_what_cannot_be_reset_of_one_mark_and_family(world: World, family: Family) -> None:
    other = next(f for f in FAMILIES if f is not family)
    doomed = [
        Entry(protocol=protocol, mark=mark, port=port, state=state, family=family)
        for port, (protocol, mark, state) in enumerate(
            [
                ("udp", 0x100, 3),
                ("icmp", 0x100, 3),
                ("sctp", 0xFF0100, 3),
                ("tcp", 0x100, 1),
                ("tcp", 0x100, 9),
            ],
            100,
        )
    ]
    kept = [
        Entry(protocol="tcp", mark=0x100, port=1, state=3, family=family),
        Entry(protocol="tcp", mark=0x100, port=2, state=2, family=family),
        Entry(mark=0x200, port=3, family=family),
        Entry(mark=0x300, port=4, family=family),
        Entry(mark=0, port=5, family=family),
        Entry(mark=0x100, port=6, family=other),
    ]
    world.track(doomed + kept)
    assert world.kernel.cut(0x100, MASK, family).forgotten == len(doomed)
    assert world.kernel.connections(MASK) == {0x100: 3, 0x200: 1, 0x300: 1, 0: 1}


def test_a_cut_reaches_every_zone(world: World) -> None:
    world.track([Entry(mark=0x100, port=7), Entry(mark=0x100, port=7, zone=5)])
    assert world.kernel.cut(0x100, MASK, Family.V4).forgotten == 2
    assert world.kernel.connections(MASK) == {}


def test_a_cut_of_many_counts_them(world: World) -> None:
    world.track([Entry(mark=0x100, port=port) for port in range(1000, 2000)])
    assert world.kernel.cut(0x100, MASK, Family.V4).forgotten == 1000


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "icmp"])
def test_a_connection_is_listed_with_its_ends_and_its_mark(world: World, family: Family, protocol: str) -> None:
    world.track([Entry(protocol=protocol, mark=0xFF0100, port=4321, family=family)])
    (flow,) = world.kernel.flows(MASK)
    client, server = ("192.0.2.1", "203.0.113.9") if family is Family.V4 else ("2001:db8::1", "2001:db8:9::9")
    ports = (None, None) if protocol == "icmp" else (4321, 53)
    assert (flow.family, flow.mark) == (family, 0x100)
    assert (flow.client, flow.client_port, flow.destination, flow.port) == (client, ports[0], server, ports[1])
    assert (flow.reply_source, flow.reply_source_port) == (server, ports[1])
    assert (flow.reply_destination, flow.reply_destination_port) == (client, ports[0])
    numbers = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1 if family is Family.V4 else 58}
    assert flow.protocol == numbers[protocol]
    assert flow.state == ("ESTABLISHED" if protocol == "tcp" else "UNREPLIED")


def test_bytes_and_age_are_unknown_when_nobody_counted(world: World) -> None:
    world.track([Entry()])
    (flow,) = world.kernel.flows(MASK)
    assert (flow.age, flow.bytes_up, flow.bytes_down, flow.packets_up, flow.packets_down) == (None,) * 5


def test_connections_of_one_mark_are_listed_alone(world: World) -> None:
    world.track([Entry(mark=mark, port=port) for port, mark in enumerate([0x100, 0x200, 0x100, 0, 0x8100], 1)])
    assert sorted(flow.client_port or 0 for flow in world.kernel.flows(MASK, 0x100)) == [1, 3, 5]


def test_what_is_listed_adds_up_to_what_is_counted(world: World) -> None:
    world.track([Entry(mark=0x100 * (port % 3), port=port) for port in range(1000, 1500)])
    assert Counter(flow.mark for flow in world.kernel.flows(MASK)) == world.kernel.connections(MASK)


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_connections_of_one_mark_and_family_are_dropped_tcp_too(world: World, family: Family) -> None:
    other = next(f for f in FAMILIES if f is not family)
    world.track(
        [
            Entry(protocol="tcp", mark=0x100, port=1, state=3, family=family),
            Entry(protocol="udp", mark=0x8100, port=2, family=family),
            Entry(protocol="udp", mark=0x100, port=3, family=family),
            Entry(protocol="udp", mark=0x200, port=1, family=family),
            Entry(protocol="udp", mark=0x100, port=1, family=other),
        ]
    )
    assert world.kernel.drop(0x100, MASK, family, lambda flow: flow.client_port != 3) == 2
    assert sorted((f.mark, f.family, f.client_port) for f in world.kernel.flows(MASK)) == sorted(
        [(0x100, family, 3), (0x200, family, 1), (0x100, other, 1)]
    )


def test_without_a_mask_marks_do_not_matter(world: World) -> None:
    world.track([Entry(mark=mark, port=1 + place) for place, mark in enumerate((0, 0x100, 0x8200))])
    assert world.kernel.drop(0, 0, Family.V4, lambda flow: flow.client_port != 2) == 2
    assert [flow.client_port for flow in world.kernel.flows(MASK)] == [2]


def test_dropping_what_nobody_has_is_fine(world: World) -> None:
    assert world.kernel.drop(0x100, MASK, Family.V4, lambda _: True) == 0


@pytest.mark.parametrize(("tcp", "challenged"), [(True, 2), (False, 0)])
def test_open_tcp_is_told_unless_it_is_to_be_left_alone_and_stays(world: World, tcp: bool, challenged: int) -> None:
    world.track([Entry(protocol="tcp", mark=mark, port=port) for port, mark in enumerate([0x100, 0xFF0100, 0x200], 1)])
    freed = world.kernel.cut(0x100, MASK, Family.V4, tcp=tcp)
    assert (freed.forgotten, freed.challenged, freed.ended) == (0, challenged, 0)
    assert world.kernel.connections(MASK) == {0x100: 2, 0x200: 1}
