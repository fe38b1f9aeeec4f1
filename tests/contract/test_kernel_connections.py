"""What every kernel keeps of tracked connections: counted by mark, and cut where no reset can help."""

from __future__ import annotations

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
    assert world.kernel.cut(0x100, MASK, family) == len(doomed)
    assert world.kernel.connections(MASK) == {0x100: 3, 0x200: 1, 0x300: 1, 0: 1}


def test_a_cut_reaches_every_zone(world: World) -> None:
    world.track([Entry(mark=0x100, port=7), Entry(mark=0x100, port=7, zone=5)])
    assert world.kernel.cut(0x100, MASK, Family.V4) == 2
    assert world.kernel.connections(MASK) == {}


def test_a_cut_of_many_counts_them(world: World) -> None:
    world.track([Entry(mark=0x100, port=port) for port in range(1000, 2000)])
    assert world.kernel.cut(0x100, MASK, Family.V4) == 1000
