"""What is counted while the daemon runs: probes, outages, failovers, repairs; no number decreases."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.health.probes import ProbeResult
from polywan.core.net import Family
from polywan.core.policy.selection import Choice, Selection
from polywan.core.policy.totals import NOTHING_COUNTED, RTT_BOUNDS, Totals, decided, probed
from polywan.core.policy.uplink_state import UplinkState, UplinkView

KEY = ("default", Family.V4)


def result(rtt: float | None, uplink: str = "a", *, late: bool = False) -> ProbeResult:
    target = ip_address("192.0.2.1")
    return ProbeResult(uplink=uplink, family=Family.V4, round=1, target=target, rtt=rtt, late=late)


results = st.builds(result, st.none() | st.floats(0, 100), st.sampled_from("ab"))


def choice(*names: str, forced: bool = False) -> Selection:
    members = tuple((name, 1) for name in names)
    one = Choice(members=members, tier=0 if members else None, reason="", forced=forced)
    return Selection(choices={KEY: one}, dead=frozenset())


def views(**states: UplinkState) -> dict[str, UplinkView]:
    return {name: UplinkView(state, 0.0, "") for name, state in states.items()}


UP, DOWN = UplinkState.UP, UplinkState.DOWN
BOTH = views(a=UP, b=UP)


def after(
    before: Selection | None, now: Selection, seen: dict[str, UplinkView], totals: Totals = NOTHING_COUNTED
) -> Totals:
    return decided(totals, (before, now), seen, (), repaired=False)


def test_a_probe_is_counted_as_sent_and_as_lost_or_by_its_round_trip() -> None:
    found = probed(NOTHING_COUNTED, [result(0.0015), result(None), result(0.001), result(9.0)])
    count = found.probes["a", Family.V4]
    assert (count.sent, count.lost, count.late) == (4, 1, 0)
    assert count.buckets == (1, 1, *(0,) * (len(RTT_BOUNDS) - 2), 1)
    assert count.rtt_sum == 0.0015 + 0.001 + 9.0


def test_a_late_answer_is_neither_sent_again_nor_less_lost() -> None:
    found = probed(NOTHING_COUNTED, [result(None), result(1.5, late=True)])
    count = found.probes["a", Family.V4]
    assert (count.sent, count.lost, count.late, sum(count.buckets)) == (1, 1, 1, 0)


@given(st.lists(results), st.lists(results))
def test_answers_and_losses_add_up_and_nothing_decreases(first: list[ProbeResult], then: list[ProbeResult]) -> None:
    before = probed(NOTHING_COUNTED, first)
    found = probed(before, then)
    for key, count in found.probes.items():
        assert sum(count.buckets) + count.lost == count.sent
        was = before.probes.get(key)
        assert was is None or (was.sent <= count.sent and was.lost <= count.lost and was.rtt_sum <= count.rtt_sum)
        assert was is None or all(one <= two for one, two in zip(was.buckets, count.buckets, strict=True))
    assert found == probed(NOTHING_COUNTED, [*first, *then])


def test_an_uplink_that_is_lost_while_others_serve_is_a_failover() -> None:
    found = after(choice("a", "b"), choice("b"), views(a=DOWN, b=UP))
    assert found.failovers == {KEY: 1}
    assert after(choice("b"), choice("b"), views(a=DOWN, b=UP), found).failovers == {KEY: 1}


def test_what_people_take_out_or_a_better_tier_is_no_failover() -> None:
    assert after(choice("a", "b"), choice("b"), views(a=UplinkState.DISABLED, b=UP)).failovers == {KEY: 0}
    assert after(choice("b"), choice("a"), BOTH).failovers == {KEY: 0}
    assert after(None, choice("a"), BOTH).failovers == {KEY: 0}


def test_a_loss_without_anybody_else_is_no_failover() -> None:
    assert after(choice("a"), choice(), views(a=DOWN)).failovers == {KEY: 0}
    assert after(choice("a", "b"), choice("b", forced=True), views(a=DOWN, b=DOWN)).failovers == {KEY: 0}


def test_an_outage_is_counted_when_it_begins() -> None:
    found = decided(NOTHING_COUNTED, (None, choice("b")), views(a=DOWN, b=UP), {"a"}, repaired=False)
    assert found.outages == {"a": 1, "b": 0}
    assert decided(found, (None, choice("b")), BOTH, (), repaired=False).outages == {"a": 1, "b": 0}
    assert decided(found, (None, choice("b")), BOTH, {"a"}, repaired=False).outages == {"a": 2, "b": 0}


def test_an_uplink_that_is_disabled_keeps_its_counts_and_a_removed_one_does_not() -> None:
    found = probed(NOTHING_COUNTED, [result(0.01), result(0.01, "b")])
    found = after(choice("a", "b"), choice("b"), views(a=UplinkState.DISABLED, b=UP), found)
    assert set(found.probes) == {("a", Family.V4), ("b", Family.V4)}
    assert set(after(choice("b"), choice("b"), views(b=UP), found).probes) == {("b", Family.V4)}


def test_a_repair_is_counted() -> None:
    found = decided(NOTHING_COUNTED, (None, choice("a")), BOTH, (), repaired=True)
    assert found.repairs == 1
