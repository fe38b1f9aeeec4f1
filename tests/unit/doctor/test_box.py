"""What a machine's values say by themselves: ways out, and what the kernel does with dead ones."""

from __future__ import annotations

import pytest

from polywan.core.net import Family, RulePriority, TableId
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import DefaultRoute, Link, Observed
from polywan.doctor.box import Box, ignoring
from polywan.doctor.facts.egress import egresses

LINKS = {name: Link(index=index, name=name, up=True, carrier=True) for index, name in enumerate(("wan1", "wan2"), 1)}


def default(link: str, metric: int) -> DefaultRoute:
    return DefaultRoute(family=Family.V4, link=link, via=None, metric=metric)


def test_a_mark_that_leads_to_main_puts_no_line_into_use() -> None:
    rule = ForeignRule(family=Family.V4, priority=RulePriority(5210), table=TableId(254), mark=(0x80000, 0xFF0000))
    observed = Observed(links=LINKS, defaults=(default("wan1", 1), default("wan2", 2)), rules=(rule,))
    box = Box(observed=observed, egresses=egresses(observed, None, None))

    assert [egress.mark for egress in box.egresses] == [0, 0]
    assert [egress.device for egress in box.in_use(Family.V4)] == ["wan1"]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    ("own", "every", "passed"),
    [("0", "0", False), ("1", "0", True), ("0", "1", True), ("1", "1", True)],
)
def test_either_setting_makes_the_kernel_pass_over_dead_links(
    family: Family, own: str, every: str, passed: bool
) -> None:
    box = Box(settings={ignoring(family, "wan1"): own, ignoring(family, "all"): every})

    assert box.passes_over(family, "wan1") is passed
    assert box.passes_over(family, "unknown")
