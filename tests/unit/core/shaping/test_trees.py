"""What stands at a device for each algorithm, in the words of tc(8)."""

from __future__ import annotations

import pytest

from polywan.config.model.shaping import LinkLayer, Shaping, ShapingAlgorithm
from polywan.core.shaping.trees import Direction, bits, tree, words
from polywan.core.world.queues import ROOT, STAMP


def text_of(algorithm: ShapingAlgorithm, direction: Direction = Direction.UP, bandwidth: int = 10_000_000) -> list[str]:
    return [words("ppp0", part) for part in tree(Shaping(algorithm=algorithm), bandwidth, direction)]


def test_cake_serves_the_hosts_inside_first_in_either_direction() -> None:
    assert text_of("cake") == [
        "qdisc dev ppp0 root handle 6000: cake bandwidth 9.5Mbit diffserv3 dual-srchost nat overhead 38 noatm mpu 84"
    ]
    (down,) = text_of("cake", Direction.DOWN)
    assert down.endswith("cake bandwidth 9.5Mbit besteffort dual-dsthost nat overhead 38 noatm mpu 84 ingress")


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("raw", "nat raw"),
        ("docsis", "overhead 18 noatm mpu 64"),
        ("pppoe-ptm", "overhead 30 ptm mpu 0"),
        ("bridged-ptm", "overhead 22 ptm mpu 0"),
        ("pppoe-llcsnap", "overhead 40 atm mpu 0"),
        ("bridged-llcsnap", "overhead 32 atm mpu 0"),
    ],
)
def test_cake_counts_what_the_line_adds_as_tc_cake_has_it(link: LinkLayer, text: str) -> None:
    (part,) = tree(Shaping(link=link), 10_000_000, Direction.UP)
    assert words("ppp0", part).endswith(text)


def test_fq_codel_stands_behind_htb_which_has_the_rate() -> None:
    assert text_of("fq_codel") == [
        "qdisc dev ppp0 root handle 6000: htb default 1",
        "class dev ppp0 parent 6000: classid 6000:1 htb rate 9.5Mbit",
        "qdisc dev ppp0 parent 6000:1 handle 6001: fq_codel target 5ms interval 100ms",
    ]


def test_on_a_slow_line_a_single_packet_does_not_count_as_a_queue() -> None:
    assert text_of("fq_codel", bandwidth=1_000_000)[-1].endswith("fq_codel target 20ms interval 115ms")


def test_prio_has_three_bands_by_dscp_for_both_families() -> None:
    found = text_of("prio")
    assert found[2:6] == [
        "qdisc dev ppp0 parent 6000:1 handle 6001: prio bands 3 priomap 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "qdisc dev ppp0 parent 6001:1 handle 6002: fq_codel target 5ms interval 100ms",
        "qdisc dev ppp0 parent 6001:2 handle 6003: fq_codel target 5ms interval 100ms",
        "qdisc dev ppp0 parent 6001:3 handle 6004: fq_codel target 5ms interval 100ms",
    ]
    filters = [text.split("protocol ")[1] for text in found[6:]]
    assert [f.split()[0] for f in filters] == ["ip"] * 6 + ["ipv6"] * 6
    assert "ip u32 match u32 0x00a00000 0x00e00000 at 0 classid 6001:1" in filters  # EF is one of these
    assert "ipv6 u32 match u32 0x02000000 0x0fc00000 at 0 classid 6001:3" in filters  # CS1


@pytest.mark.parametrize("algorithm", ["cake", "fq_codel", "prio"])
def test_every_part_has_a_place_of_its_own_below_the_one_root(algorithm: ShapingAlgorithm) -> None:
    parts = tree(Shaping(algorithm=algorithm), 5_000_000, Direction.UP)
    assert len({part.place for part in parts}) == len(parts)
    assert [part.handle for part in parts if part.parent == ROOT] == [STAMP << 16]
    before: set[int] = set()
    for part in parts:
        if part.kind != "u32":
            assert part.parent in before | {ROOT}
        before.add(part.handle)
        before |= {part.handle | band for band in (1, 2, 3)} if part.kind == "prio" else set()


@pytest.mark.parametrize(
    ("rate", "text"),
    [(8, "8bit"), (64_000, "64Kbit"), (9_500_000, "9.5Mbit"), (47_500_000, "47.5Mbit"), (2_500_000_000, "2.5Gbit")],
)
def test_a_rate_reads_as_in_tc(rate: int, text: str) -> None:
    assert bits(rate) == text
