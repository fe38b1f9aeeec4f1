"""What happens to the connections of an uplink that is lost, by what its policies say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polywan.core.policy.selection import on_down
from polywan.core.resolved import resolve
from polywan.core.state.effects import Apply, ReleaseConnections
from polywan.core.state.events import ConfigLoaded, Tick
from support.engine_world import Engine, config, world

BOTH = [["u1", "u2"]]


def policy(word: str, tiers: list[list[str]] | None = None) -> dict[str, Any]:
    return {"tiers": tiers or BOTH, "on_down": word}


def cuts(daemon: Engine) -> list[ReleaseConnections]:
    return [e for e in daemon.carrier(1, carrier=False) if isinstance(e, ReleaseConnections)]


def test_by_default_every_uplink_is_reset() -> None:
    assert on_down(resolve(config(2), {})) == {"u1": "reset", "u2": "reset"}


@pytest.mark.parametrize("words", [("reset", "keep"), ("keep", "reset"), ("move", "reset")])
def test_one_policy_that_says_reset_decides(words: tuple[str, str]) -> None:
    configuration = config(2, policies={"default": policy(words[0]), "calls": policy(words[1])})
    assert on_down(resolve(configuration, {})) == {"u1": "reset", "u2": "reset"}


def test_of_the_others_move_decides() -> None:
    configuration = config(2, policies={"default": policy("keep"), "calls": policy("move", [["u1"]])})
    assert on_down(resolve(configuration, {})) == {"u1": "move", "u2": "keep"}


def test_the_default_policy_counts_even_when_nobody_has_written_it() -> None:
    assert on_down(resolve(config(2, policies={"calls": policy("keep")}), {}))["u1"] == "reset"


def test_an_uplink_of_no_policy_is_reset() -> None:
    assert on_down(resolve(config(2, policies={"default": policy("keep", [["u1"]])}), {}))["u2"] == "reset"


def test_move_cuts_all_but_tcp_and_declares_nothing_dead() -> None:
    daemon = Engine(config(2, policies={"default": policy("move")}), world(2))
    assert {(c.uplink, c.tcp) for c in cuts(daemon)} == {("u1", False)}
    assert daemon.state.decision.desired is not None
    assert daemon.state.decision.desired.nft.sets["dead_4"].elements == frozenset()


def test_keep_cuts_nothing_now_or_later() -> None:
    daemon = Engine(config(2, policies={"default": policy("keep")}), world(2))
    assert cuts(daemon) == []
    daemon.now = 1.0
    assert [e for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)] == []


def test_the_second_sweep_cuts_like_the_first() -> None:
    daemon = Engine(config(2, policies={"default": policy("move")}), world(2))
    first = cuts(daemon)
    daemon.now = 1.0
    again = [e for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)]
    assert again == [replace(cut, clients=True) for cut in first]


def test_the_second_sweep_spares_what_serves_again_for_want_of_any_other() -> None:
    daemon = Engine(config(2), world(2))
    assert cuts(daemon)
    daemon.carrier(2, carrier=False)
    daemon.now = 1.0
    assert [e for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)] == []


def test_a_reload_from_move_to_reset_ends_what_was_left_alone() -> None:
    daemon = Engine(config(2, policies={"default": policy("move")}), world(2))
    assert cuts(daemon)
    effects = daemon.feed(ConfigLoaded(config(2, policies={"default": policy("reset")})))
    assert {c.tcp for c in effects if isinstance(c, ReleaseConnections)} == {True}
    kinds = [type(e) for e in effects]
    assert kinds.index(Apply) < kinds.index(ReleaseConnections)
