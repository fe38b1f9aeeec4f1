"""The tree of policy rules leads every mark to its table, whatever the ids and the mask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.marks import END, FWMARK
from polywan.core.net import Family, MarkLayout, TableId
from polywan.core.routing.ahead import blocks
from polywan.core.routing.policy_rules import mark_tree
from polywan.core.routing.routes import IpRule

MASKS = st.sampled_from([0x3F00, 0xFF00, 0x00FF0000, 0x55555555])


def walk(rules: list[IpRule], mark: int) -> tuple[TableId | None, int]:
    """Look a mark up as the kernel does (fib_rules): the table it leads to, and how many rules were met."""
    at, met = 0, 0
    while at < len(rules):
        rule = rules[at]
        met += 1
        matches = rule.mark is None or mark & rule.mark[1] == rule.mark[0]
        if matches and rule.goto is not None:
            at = next((i for i, other in enumerate(rules) if other.priority == rule.goto), len(rules))
            continue
        if matches:
            return rule.table, met
        at += 1
    return None, met


def tree(ids: set[int], layout: MarkLayout) -> list[IpRule]:
    return mark_tree(Family.V4, {i: TableId(6000 + i) for i in ids}, layout, 6000)


@given(st.sets(st.integers(1, 62), min_size=1), MASKS, st.integers(0, 0xFFFFFFFF))
def test_every_mark_finds_its_own_table_whatever_bits_others_set(ids: set[int], mask: int, foreign: int) -> None:
    layout = MarkLayout(mask)
    rules = tree(ids, layout)
    for ident in ids:
        assert walk(rules, layout.mark(ident) | foreign & layout.keep)[0] == 6000 + ident


@given(st.sets(st.integers(1, 62), min_size=1), MASKS, st.integers(0, 0xFFFFFFFF))
def test_marks_that_were_not_given_find_none(ids: set[int], mask: int, foreign: int) -> None:
    layout = MarkLayout(mask)
    rules = tree(ids, layout)
    assert walk(rules, foreign & layout.keep)[0] is None
    for ident in {1, 7, 8, 31, 62} - ids:
        assert walk(rules, layout.mark(ident))[0] is None


@given(st.sets(st.integers(1, 254), min_size=1))
def test_priorities_rise_within_their_block_and_every_goto_leads_forward_to_a_rule(ids: set[int]) -> None:
    rules = tree(ids, MarkLayout(0xFF00))
    priorities = [rule.priority for rule in rules]
    assert priorities == sorted(set(priorities))
    assert priorities[0] >= 6000 + FWMARK
    assert priorities[-1] < 6000 + END
    for rule in rules:
        assert rule.goto is None or (rule.goto in {*priorities, 6000 + END} and rule.goto > rule.priority)


@given(st.sets(st.integers(1, 62), min_size=1), MASKS, st.integers(0, 0xFFFFFFFF))
def test_the_blocks_hold_the_marks_of_their_ids_and_no_others(ids: set[int], mask: int, foreign: int) -> None:
    layout = MarkLayout(mask)
    found = blocks(ids, layout)
    for number in range(1 << min(8, mask.bit_count())):
        word = layout.spread(number) | foreign & layout.keep
        assert any(word & m == v for v, m in found) is (number in ids)


@given(st.integers(1, 254))
def test_the_number_of_rules_met_grows_with_the_logarithm(count: int) -> None:
    layout = MarkLayout(0xFF00)
    rules = tree(set(range(1, count + 1)), layout)
    worst = max(walk(rules, layout.mark(ident))[1] for ident in range(1, count + 1))
    assert worst <= 8 + max(0, count.bit_length() - 3)


@given(st.sets(st.integers(1, 60), min_size=2))
def test_an_uplink_that_joins_or_leaves_moves_nobody_elses_rule(ids: set[int]) -> None:
    layout = MarkLayout(0x3F00)
    highest = max(ids)
    without = ids - {min(ids)}
    assert max(without) == highest
    kept = {(r.priority, r.mark, r.table) for r in tree(without, layout) if r.table and r.table > 6000}
    assert kept < {(r.priority, r.mark, r.table) for r in tree(ids, layout)}
