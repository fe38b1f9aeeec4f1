"""Which rules of other programs have to see every packet of an established connection."""

from __future__ import annotations

from collections.abc import Sequence

from polywan.core.world.foreign_chains import FilterRule, HookedChain, watching

HOOKED = HookedChain("inet", "filter", "forward")
ACCEPTS = FilterRule(met=True, sure=True, verdicts=("accept",))
MAY_ACCEPT = FilterRule(met=True, sure=False, verdicts=("accept",))
LIMITS = FilterRule(met=True, sure=True, watches="limit")
FIRST_ONLY = FilterRule(met=False, sure=True, watches="log")
LIMITING = "chain forward of table inet filter has to see every packet (limit)"


def who(**chains: Sequence[FilterRule]) -> str:
    return watching([HOOKED], {("inet", "filter"): chains})


def leads(verdict: str, *, sure: bool = True) -> FilterRule:
    return FilterRule(met=True, sure=sure, verdicts=(verdict,))


def test_a_rule_that_every_packet_meets_is_named_with_its_chain_and_what_it_does() -> None:
    assert who(forward=[LIMITS]) == LIMITING
    assert who(forward=[MAY_ACCEPT, LIMITS]) == LIMITING


def test_nothing_behind_the_rule_that_accepts_established_connections_counts() -> None:
    assert who(forward=[ACCEPTS, LIMITS]) == ""


def test_what_first_packets_alone_meet_does_not_count() -> None:
    assert who(forward=[FIRST_ONLY]) == ""
    assert who() == ""


def test_jumps_are_followed_and_come_back() -> None:
    assert who(forward=[leads("jump more"), LIMITS], more=[MAY_ACCEPT]) == LIMITING
    assert who(forward=[leads("jump more"), LIMITS], more=[leads("return"), ACCEPTS]) == LIMITING
    assert who(forward=[leads("jump more")], more=[LIMITS]) == LIMITING
    assert who(forward=[leads("jump more", sure=False)], more=[LIMITS]) == LIMITING


def test_a_chain_that_accepts_established_connections_ends_the_one_that_led_to_it() -> None:
    assert who(forward=[leads("jump more"), LIMITS], more=[ACCEPTS]) == ""
    assert who(forward=[leads("jump more", sure=False), LIMITS], more=[ACCEPTS]) == LIMITING


def test_a_goto_does_not_come_back() -> None:
    assert who(forward=[leads("goto more"), LIMITS], more=[MAY_ACCEPT]) == ""
    assert who(forward=[leads("goto more")], more=[LIMITS]) == LIMITING


def test_every_way_of_a_map_is_followed() -> None:
    either = FilterRule(met=True, sure=False, verdicts=("accept", "jump more"))
    assert who(forward=[either], more=[LIMITS]) == LIMITING
    assert who(forward=[either], more=[]) == ""


def test_a_circle_of_jumps_has_an_end() -> None:
    assert who(forward=[leads("jump more")], more=[leads("jump forward"), LIMITS]) == LIMITING
