"""Parts of trees as messages; the contract tests and tc(8) say whether the kernel understands them."""

from __future__ import annotations

import struct

import pytest

from polywan.config.model.shaping import LinkLayer, Shaping, ShapingAlgorithm
from polywan.core.shaping.trees import Direction, tree
from polywan.core.world.queues import STAMP
from polywan.kernel.netlink.socket import attribute, number
from polywan.kernel.tc import messages as tc
from polywan.kernel.tc import options

LINKS: list[LinkLayer] = ["ethernet", "docsis", "pppoe-ptm", "bridged-ptm", "pppoe-llcsnap", "bridged-llcsnap", "raw"]


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("rate", [64_000, 10_000_000, 40_000_000_000, 900_000_000_000])
@pytest.mark.parametrize(
    ("algorithm", "link"), [*(("cake", link) for link in LINKS), ("fq_codel", None), ("prio", None)]
)
def test_every_part_decodes_to_itself(
    algorithm: ShapingAlgorithm, link: LinkLayer | None, rate: int, direction: Direction
) -> None:
    for part in tree(Shaping(algorithm=algorithm, link=link), rate, direction):
        shown = tc.decode(tc.put_part(part, 7).body)
        assert shown is not None
        assert (shown.ifindex, tc.part_of(shown), shown.ours) == (7, part, True)


def test_a_class_at_the_top_belongs_to_its_discipline_though_the_kernel_says_it_is_a_root() -> None:
    part = tree(Shaping(algorithm="prio"), 8_000_000, Direction.UP)[1]
    payload = options.encode("class", dict(part.options))
    body = (
        struct.pack("=BxHiIII", 0, 0, 7, part.handle, 0xFFFF_FFFF, 0) + attribute(1, b"htb\0") + attribute(2, payload)
    )
    shown = tc.decode(body)
    assert shown is not None
    assert tc.part_of(shown) == part


def test_fq_codel_is_shown_in_units_that_are_not_whole_microseconds() -> None:
    shown = number(1, 4999) + number(3, 99999)
    assert dict(options.decode("fq_codel", shown)) == {"target": 5, "interval": 100}


def test_a_class_whose_ceiling_is_another_is_not_the_one_that_was_made() -> None:
    part = tree(Shaping(algorithm="prio"), 8_000_000, Direction.UP)[1]
    payload = bytearray(options.encode("class", dict(part.options)))
    payload[4 + 12 + 8 : 4 + 12 + 12] = struct.pack("=I", 5_000_000)
    assert options.decode("class", bytes(payload)) != part.options


def test_an_ingress_is_ours_by_its_block_of_filters() -> None:
    ours, theirs = (
        tc.decode(struct.pack("=BxHiIII", 0, 0, 7, 0xFFFF_0000, tc.INGRESS, 0) + attribute(1, b"ingress\0") + block)
        for block in (number(13, tc.block_of_index(7)), b"")
    )
    assert ours is not None
    assert theirs is not None
    assert (ours.ours, theirs.ours) == (True, False)
    assert tc.block_of_index(7) == (STAMP << 16) + 7


def test_a_redirect_leads_to_its_device_and_anything_else_nowhere() -> None:
    request = tc.put_redirect(7, 9)
    shown = tc.decode(request.body)
    assert shown is not None
    assert tc.redirected_to(shown) == 9
    assert tc.redirected_to(shown._replace(kind="u32")) == 0
    mirror = tc.decode(request.body.replace(struct.pack("=iI", 1, 9), struct.pack("=iI", 2, 9)))
    assert mirror is not None
    assert tc.redirected_to(mirror) == 0
