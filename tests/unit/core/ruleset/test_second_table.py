"""The second table: what it holds of the first, and how it comes to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.identity import forget
from polywan.core.ruleset.model import HELD, Chain, NftRule, NftSet, NftTable, held_texts
from polywan.core.ruleset.second_table import KEEP_TABLE, keep
from polywan.core.world.observed import Observed
from support.engine_world import Engine, config, link, world

MASK = 0x3F00


def table(uplinks: dict[str, Any] | None = None, **more: Any) -> NftTable:
    read = config(2, **more) if uplinks is None else Config.model_validate({"uplinks": uplinks, **more})
    desired = Engine(read, world(2)).state.decision.desired
    assert desired is not None
    return desired.nft


def texts(chain: Chain) -> list[str]:
    return [rule.text for rule in chain.rules]


def test_it_translates_as_the_first_and_just_behind_it() -> None:
    ours = table()
    held = keep(ours, MASK, ipsec=False).chains["nat"]
    assert texts(held) == texts(ours.chains["nat"])
    assert held.hook is not None
    assert ours.chains["nat"].hook is not None
    assert (held.hook.type, held.hook.priority) == ("nat", ours.chains["nat"].hook.priority + 1)


def test_a_packet_that_has_its_mark_meets_one_rule_and_an_answer_from_outside_two() -> None:
    rules = texts(keep(table(), MASK, ipsec=False).chains["prerouting"])
    assert rules[:2] == ["meta mark & 0x00003f00 != 0 accept", "ct direction reply iifname @outside_ifs accept"]


def invalid(ours: NftTable, *, ipsec: bool = False) -> list[str]:
    return [text for text in texts(keep(ours, MASK, ipsec=ipsec).chains["prerouting"]) if "invalid" in text]


def test_what_would_leave_untranslated_is_dropped_where_it_comes_in() -> None:
    (text,) = invalid(table())
    assert 'fib daddr . mark oifname { "wan1", "wan2" } counter drop' in text
    (text,) = invalid(table(uplinks={"u1": {"interface": "wan1", "nat": "none"}, "u2": {"interface": "wan2"}}))
    assert '{ "wan2" }' in text


def test_with_ipsec_nothing_is_dropped_before_it_is_known_whether_a_tunnel_takes_it() -> None:
    assert invalid(table(), ipsec=True) == []


def test_everything_that_a_rule_refers_to_is_there_and_nothing_else() -> None:
    rules = [{"from": "192.168.15.40", "not": {"port": 22, "protocol": "tcp"}, "only": ["u2"]}]
    held = keep(table(rules=rules), MASK, ipsec=False)
    assert {"kill_switch", "kill_switch_1", "nat", "prerouting", "output", "to_u1", "to_u2"} <= set(held.chains)
    assert set(held.maps) == {"restore", "arrival"}
    assert {"inside", "outside_ifs", "uplinks", "masqueraded"} <= set(held.sets)
    assert not {"policy_default", "steering_rules", "classify"} & set(held.chains)


def test_without_a_kill_switch_there_is_no_chain_for_it() -> None:
    assert "kill_switch" not in keep(table(), MASK, ipsec=False).chains


@pytest.mark.parametrize("name", ["dns_x", "list_x"])
def test_a_chain_ends_before_the_first_rule_that_needs_what_others_fill(name: str) -> None:
    ours = table(rules=[{"from": "192.168.15.40", "only": ["u2"]}])
    only = ours.chains["kill_switch"]
    at = len(only.rules)
    longer = replace(only, rules=(*only.rules, NftRule(f"ip daddr @{name} drop", "x"), NftRule("drop", "y")))
    changed = replace(
        ours,
        chains={**ours.chains, "kill_switch": longer},
        sets={**ours.sets, name: NftSet("type ipv4_addr;")},
    )
    held = keep(changed, MASK, ipsec=False)
    assert len(held.chains["kill_switch"].rules) == at
    assert name not in held.sets


def test_a_kernel_without_ipsec_is_asked_for_none() -> None:
    def asks(**how: bool) -> bool:
        return any("secpath" in text for text in texts(keep(table(), MASK, ipsec=False, **how).chains["prerouting"]))

    assert asks()
    assert not asks(xfrm=False)


def test_it_is_made_in_place_of_its_forerunner_and_of_one_that_is_nobodys() -> None:
    first, second = held_texts(KEEP_TABLE, keep(table(), MASK, ipsec=False))
    assert first.startswith(
        f"add table {KEEP_TABLE} {{ {HELD}; }}\ndelete table {KEEP_TABLE}\ntable {KEEP_TABLE} {{\n\t{HELD}\n"
    )
    assert second.startswith(f"add table {KEEP_TABLE}\ndelete table {KEEP_TABLE}\ntable {KEEP_TABLE} {{\n\t{HELD}\n")
    assert held_texts(KEEP_TABLE, None)[0] == f"add table {KEEP_TABLE} {{ {HELD}; }}\ndelete table {KEEP_TABLE}\n"


def desired_in(file: Config, observed: Observed) -> NftTable:
    desired = Engine(file, observed).state.decision.desired
    assert desired is not None
    return desired.nft


def inside(observed: Observed) -> Observed:
    lan = replace(link(9), name="lan9", index=99)
    return replace(observed, links={**observed.links, "lan9": lan})


ONLY: dict[str, Any] = {"rules": [{"from": "192.168.15.40", "not": {"port": 22, "protocol": "tcp"}, "only": ["u2"]}]}


def needing(ours: NftTable) -> NftTable:
    """The same with a set that others fill in a chain that the kill switch jumps to."""
    chain = ours.chains["kill_switch_1"]
    more = replace(chain, rules=(NftRule("ip daddr @list_x return", "x"), *chain.rules))
    return replace(
        ours,
        chains={**ours.chains, "kill_switch_1": more},
        sets={**ours.sets, "list_x": NftSet("type ipv4_addr;")},
    )


def swapped() -> NftTable:
    uplinks = {"u1": {"interface": "wan2"}, "u2": {"interface": "wan1"}}
    return desired_in(Config.model_validate({"uplinks": uplinks, "global": {"mark_mask": MASK}}), world(2))


CHANGED: dict[str, Callable[[], tuple[NftTable, NftTable]]] = {
    "a device inside comes": lambda: (
        desired_in(config(2, **ONLY), world(2)),
        desired_in(config(2, **ONLY), inside(world(2))),
    ),
    "uplinks exchange their devices": lambda: (desired_in(config(2), world(2)), swapped()),
    "a chain needs no list any more": lambda: (needing(table(**ONLY)), table(**ONLY)),
    "a chain needs a list": lambda: (table(**ONLY), needing(table(**ONLY))),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_was_remembered_of_another_first_table_is_not_taken_for_this_one(what: str) -> None:
    before, after = CHANGED[what]()
    first, found = keep(before, MASK, ipsec=False), keep(after, MASK, ipsec=False)
    forget()
    assert found == keep(after, MASK, ipsec=False)
    assert found != first


def test_a_decision_asks_for_it_only_when_it_differs() -> None:
    daemon = Engine(config(3), world(3))
    desired = daemon.state.decision.desired
    assert desired is not None
    assert daemon.state.decision.held == {KEEP_TABLE: keep(desired.nft, 0x3F00, ipsec=False)}
    before = daemon.state.decision.held
    effects = daemon.carrier(1, carrier=False)
    assert not [effect for effect in effects if type(effect).__name__ == "Hold"]
    assert daemon.state.decision.held is before or daemon.state.decision.held == before
