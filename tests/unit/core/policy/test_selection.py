"""Who serves a policy: tiers, degraded members, slow start."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from polywan.config import Config, HealthSettings
from polywan.core.health import rounds as hl
from polywan.core.health import slow_start
from polywan.core.health.quality import Quality
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.policy.operator import Order, Verb
from polywan.core.policy.selection import NO_ORDERS, Choice, Selection, select
from polywan.core.policy.slots import rendezvous, slots
from polywan.core.quota.limits import UNRESTRICTED, Restrictions
from polywan.core.resolved import resolve
from polywan.core.world.paths import Path, UplinkFamily

UP = hl.initial(Health.UP, "has a path", 0.0)
DOWN = replace(hl.initial(Health.DOWN, "3 probe rounds in a row failed", 0.0), proven=True)
POOR = replace(UP, quality=Quality(reason="loss 34 % (limit 20 %)"))
BACK = replace(UP, returned=100.0)
SETTINGS = HealthSettings()


def config(*tiers: list[str], weights: Mapping[str, int] | None = None) -> Config:
    names = [name for tier in tiers for name in tier]
    uplinks = {name: {"interface": f"if-{name}", "weight": (weights or {}).get(name, 1)} for name in names}
    return Config.model_validate({"uplinks": uplinks, "policies": {"default": {"tiers": list(tiers)}}})


def chosen(
    config: Config,
    states: Mapping[str, ProbeState],
    now: float = 0.0,
    before: Selection | None = None,
    orders: Mapping[str, Order] = NO_ORDERS,
    limited: Restrictions = UNRESTRICTED,
) -> Selection:
    reach = {
        (name, Family.V4): Path(link=f"if-{name}", via=None, onlink=False, addresses=()) for name in config.uplinks
    }
    health = {(name, Family.V4): states.get(name, UP) for name in config.uplinks}
    probing = dict.fromkeys(config.uplinks, SETTINGS)
    ramps = slow_start.percents(health, probing, now)
    return select(resolve(config, {}), reach, health, before, orders, ramps, limited=limited)


def default(selection: Selection) -> Choice:
    return selection.choices["default", Family.V4]


def test_a_degraded_member_stands_by_while_another_of_its_tier_is_well() -> None:
    choice = default(chosen(config(["a", "b"], ["c"]), {"a": POOR}))
    assert choice.members == (("b", 1),)
    assert choice.reason == "tier 1: 2 of 2 healthy; a degraded, standing by"


def test_degraded_members_serve_before_the_next_tier() -> None:
    choice = default(chosen(config(["a", "b"], ["c"]), {"a": POOR, "b": DOWN}))
    assert (choice.members, choice.tier) == ((("a", 1),), 0)


def test_when_all_are_degraded_they_share() -> None:
    assert default(chosen(config(["a", "b"]), {"a": POOR, "b": POOR})).members == (("a", 1), ("b", 1))


def test_an_uplink_that_is_drained_by_hand_takes_nothing_from_a_silent_one() -> None:
    """Nobody else may serve, so that the silent one may be well all the same."""
    drained = {"a": Order(verb=Verb.DRAIN, since=0.0, until=600.0)}
    assert default(chosen(config(["a"], ["b"]), {"b": DOWN}, orders=drained)).members == (("b", 1),)


def test_an_uplink_that_serves_a_policy_without_a_healthy_one_keeps_its_connections() -> None:
    policies = {"default": {"tiers": [["a"]]}, "other": {"tiers": [["b"]]}}
    known = Config.model_validate({"uplinks": {n: {"interface": f"if-{n}"} for n in "ab"}, "policies": policies})
    selection = chosen(known, {"b": replace(DOWN, good=1)})
    assert selection.choices["other", Family.V4].members == (("b", 1),)
    assert selection.dead == frozenset()


def test_a_degraded_uplink_keeps_its_connections() -> None:
    assert chosen(config(["a", "b"]), {"a": POOR}).dead == frozenset()


def test_an_uplink_that_failed_with_all_others_keeps_its_connections_when_one_is_back() -> None:
    together = hl.fall_together(UP, 1.0)
    assert chosen(config(["a", "b"]), {"a": together}).dead == frozenset()


def test_an_uplink_that_came_back_begins_with_a_hundredth_of_its_weight() -> None:
    choice = default(chosen(config(["a", "b"], weights={"a": 3, "b": 2}), {"a": BACK}, now=100.0))
    assert choice.members == (("a", 3), ("b", 200))
    assert choice.reason == "tier 1: 2 of 2 healthy; slow start: a at 1 %"


@pytest.mark.parametrize(("seconds", "percent"), [(0, 1), (5.9, 1), (6, 10), (30, 50), (59.9, 90), (60, 100)])
def test_it_grows_by_a_tenth_at_a_time(seconds: float, percent: int) -> None:
    assert slow_start.percent(BACK, SETTINGS, 100.0 + seconds) == percent


def test_each_step_is_waited_for_and_the_last_one_ends_it() -> None:
    key: UplinkFamily = ("a", Family.V4)
    now, times = 100.0, []
    while (now := slow_start.next_step({key: BACK}, {"a": SETTINGS}, now)) < float("inf"):
        times.append(round(now - 100.0, 3))
    assert times == [6.0 * n for n in range(1, 11)]


def test_slow_start_can_be_turned_off() -> None:
    assert slow_start.percent(BACK, SETTINGS.model_copy(update={"slow_start": 0.0}), 100.0) == 100


def test_who_was_up_from_the_start_has_its_full_weight() -> None:
    assert slow_start.percent(UP, SETTINGS, 0.0) == 100


def test_who_is_alone_has_nobody_to_leave_anything_to() -> None:
    assert default(chosen(config(["a", "b"]), {"a": BACK, "b": DOWN}, now=100.0)).members == (("a", 1),)


def test_two_that_came_back_together_share_as_ever() -> None:
    choice = default(chosen(config(["a", "b"]), {"a": BACK, "b": BACK}, now=100.0))
    assert choice.members == (("a", 1), ("b", 1))
    assert "slow start" not in choice.reason


def test_at_full_weight_the_members_are_what_they_were_without_slow_start() -> None:
    configuration = config(["a", "b", "c"], weights={"a": 6, "b": 4, "c": 2})
    assert default(chosen(configuration, {"a": BACK}, now=200.0)).members == (("a", 6), ("b", 4), ("c", 2))


def test_turns_follow_the_reduced_weight() -> None:
    choice = default(chosen(config(["a", "b"]), {"a": BACK}, now=130.0))
    turns = slots([weight for _, weight in choice.members])
    assert [turns.count(0), turns.count(1)] == [1, 2]


def test_hash_slots_move_only_towards_the_uplink_that_grows() -> None:
    configuration = config(["a", "b", "c"], weights={"a": 3, "b": 2, "c": 1})
    owners: list[list[str]] = []
    for step in range(11):
        members = default(chosen(configuration, {"a": BACK}, now=100.0 + 6.0 * step)).members
        owners.append([members[i][0] for i in rendezvous(members)])
    for before, after in pairwise(owners):
        assert all(new in (old, "a") for old, new in zip(before, after, strict=True))
        assert before.count("a") < after.count("a")
    assert owners[-1] == [("a", "b", "c")[i] for i in rendezvous((("a", 3), ("b", 2), ("c", 1)))]


def test_a_policy_whose_uplinks_are_down_while_others_answer_refuses_and_holds_nobody_back() -> None:
    more = {"policies": {"default": {"tiers": [["a", "b"]]}, "own": {"tiers": [["a"]]}}}
    configuration = Config.model_validate(
        {**config(["a", "b"]).model_dump(by_alias=True, exclude_defaults=True), **more}
    )
    lost = chosen(configuration, {"a": DOWN})
    assert lost.choices["own", Family.V4].members == ()
    assert lost.dead == {("a", Family.V4)}
    back = chosen(configuration, {"a": replace(DOWN, good=1)})
    assert back.choices["own", Family.V4].members == (("a", 1),)
    nobody = chosen(configuration, {"a": DOWN, "b": DOWN}, before=chosen(configuration, {}))
    assert nobody.choices["own", Family.V4].members == (("a", 1),)
    assert nobody.dead == frozenset()


def test_an_uplink_that_is_to_have_less_counts_a_tenth_beside_others() -> None:
    choice = default(chosen(config(["a", "b"], weights={"a": 3}), {}, limited={"a": "less"}))
    assert choice.members == (("a", 3), ("b", 10))
    assert choice.reason == "tier 1: 2 of 2 healthy; quota: a at 10 %"


def test_where_all_are_to_have_less_each_counts_in_full() -> None:
    choice = default(chosen(config(["a", "b"]), {}, limited={"a": "less", "b": "less"}))
    assert (choice.members, choice.reason) == ((("a", 1), ("b", 1)), "tier 1: 2 of 2 healthy")


def test_slow_start_and_a_quota_lower_a_weight_together() -> None:
    choice = default(chosen(config(["a", "b"]), {"a": BACK}, now=130.0, limited={"a": "less"}))
    assert choice.members == (("a", 1), ("b", 20))
    assert choice.reason == "tier 1: 2 of 2 healthy; slow start: a at 50 %; quota: a at 10 %"


def test_an_uplink_that_stands_by_for_its_quota_is_behind_every_tier() -> None:
    for states, members, tier in (
        ({}, (("b", 1),), 0),
        ({"b": POOR}, (("b", 1),), 0),
        ({"b": DOWN}, (("c", 1),), 1),
        ({"b": DOWN, "c": DOWN}, (("a", 1),), 0),
    ):
        choice = default(chosen(config(["a", "b"], ["c"]), states, limited={"a": "standby"}))
        assert (choice.members, choice.tier, choice.forced) == (members, tier, False)


def test_those_that_stand_by_serve_in_the_order_of_their_tiers() -> None:
    limited: Restrictions = {"a": "standby", "b": "standby"}
    assert default(chosen(config(["a"], ["b"], ["c"]), {"c": DOWN}, limited=limited)).members == (("a", 1),)
    choice = default(chosen(config(["a"], ["b"], ["c"]), {"a": DOWN, "c": DOWN}, limited=limited))
    assert (choice.members, choice.tier) == ((("b", 1),), 1)
    assert choice.reason == "only uplinks that stand by for their quota are healthy; tier 2: 1 of 1 healthy"


def test_an_uplink_that_is_blocked_serves_nobody_even_where_nobody_else_may() -> None:
    choice = default(chosen(config(["a"]), {}, limited={"a": "block"}))
    assert (choice.members, choice.tier) == ((), None)
    choice = default(chosen(config(["a", "b"]), {"b": DOWN}, limited={"a": "block"}))
    assert (choice.members, choice.forced) == ((("b", 1),), True)


def test_a_reason_names_healthy_uplinks_of_earlier_tiers_whose_quota_passes_them_over() -> None:
    file = config(["a", "b"], ["c"], ["d"])
    choice = default(chosen(file, {}, limited={"a": "block", "b": "standby", "d": "standby"}))
    assert choice.reason == "tier 2: 1 of 1 healthy; quota: b standing by, a blocked"
    choice = default(chosen(file, {"a": DOWN, "b": DOWN}, limited={"a": "block", "b": "standby"}))
    assert choice.reason == "tier 2: 1 of 1 healthy"


def test_a_reason_names_uplinks_that_are_blocked_for_their_quota_where_nothing_better_serves() -> None:
    reasons = [
        default(chosen(config(["a"]), {}, limited={"a": "block"})).reason,
        default(chosen(config(["a", "b"]), {"b": DOWN}, limited={"a": "block"})).reason,
        default(chosen(config(["a"], ["b"]), {}, limited={"a": "block", "b": "standby"})).reason,
    ]
    assert reasons == [
        "all its uplinks are without a link or out of use; the last resort applies; quota: a blocked",
        "no healthy uplink; trying every link; quota: a blocked",
        "only uplinks that stand by for their quota are healthy; tier 2: 1 of 1 healthy; quota: a blocked",
    ]
    assert "quota" not in default(chosen(config(["a"], ["b"]), {"b": DOWN}, limited={"b": "block"})).reason


def test_an_uplink_that_is_blocked_takes_nothing_from_a_silent_one_and_loses_nothing() -> None:
    selection = chosen(config(["a", "b"]), {"b": DOWN}, limited={"a": "block"})
    assert (selection.dead, selection.moved) == (frozenset(), frozenset())
    selection = chosen(config(["a", "b"]), {}, limited={"a": "block"})
    assert (selection.dead, selection.moved) == (frozenset(), frozenset())
