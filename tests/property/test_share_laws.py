"""Shares that are shown add up, whatever they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polywan.cli.shares import percents
from polywan.core.net import FAMILIES
from polywan.core.status import uplink_detail
from polywan.core.status.document import document
from support.engine_world import Engine, config, world

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=62)


@given(WEIGHTS)
def test_percentages_add_up_to_a_hundred_exactly_and_are_off_by_less_than_one_unit_and_a_floor(
    weights: list[int],
) -> None:
    total = sum(weights)
    shown = [float(text.removesuffix(" %")) for text in percents([w / total if total else 0.0 for w in weights])]
    tenths = [round(10 * value) for value in shown]
    assert sum(tenths) == (1000 if total else 0)
    assert all((tenth > 0) == (weight > 0) for tenth, weight in zip(tenths, weights, strict=True))
    if total:
        small = sum(0 < 1000 * w / total < 1 for w in weights)
        assert all(abs(t - 1000 * w / total) <= 1 + small for t, w in zip(tenths, weights, strict=True))


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.sets(st.integers(1, 8)))
def test_shares_of_a_policy_and_family_are_a_whole_whoever_is_down(weights: list[int], dead: set[int]) -> None:
    daemon = Engine(config(len(weights), weights), world(len(weights)))
    for number in dead:
        if number <= len(weights):
            daemon.carrier(number, carrier=False)
    found = document(daemon.state, "1", 0.0, 0.0, {}, daemon.now)
    for family in FAMILIES:
        whole = sum(u.shares[family.nfproto] for u in found.uplinks)
        assert abs(whole - (len(dead & set(range(1, len(weights) + 1))) < len(weights))) < 1e-5
    for u in found.uplinks:
        assert u.standby == uplink_detail.stands_by(daemon.state, u.name)
