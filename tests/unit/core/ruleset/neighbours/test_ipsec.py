"""Where the table spares what IPsec takes, and that it says nothing of IPsec where the kernel has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.ruleset.model import NftTable
from polywan.core.ruleset.neighbours.ipsec import TAKEN
from support.engine_world import Engine, link, world

NATS: dict[str, dict[str, Any]] = {
    "masquerade": {},
    "fixed": {"nat": {"snat": "198.51.100.7"}},
    "fixed in IPv6": {"nat": {"snat": "2001:db8::7"}},
    "none": {"nat": "none"},
    "prefix": {"prefix6": ["2001:db8:a::/56"], "nat6": "prefix"},
    "native": {"prefix6": ["2001:db8:a::/56"], "nat6": "native"},
}


def table(nat: dict[str, Any] | None = None, *, ipsec: bool = True) -> NftTable:
    config = Config.model_validate(
        {
            "uplinks": {"u1": {"interface": "wan1", **(nat or {})}, "u2": {"interface": "wan2"}},
            "rules": [{"from": "192.0.2.0/24", "only": "u1"}],
        }
    )
    desired = Engine(config, replace(world(2), xfrm=ipsec)).state.decision.desired
    assert desired is not None
    return desired.nft


def texts(table: NftTable, chain: str) -> list[str]:
    return [rule.text for rule in table.chains[chain].rules]


@pytest.mark.parametrize("nat", NATS.values(), ids=NATS)
def test_no_rule_of_any_translation_stands_before_the_one_that_spares_ipsec(nat: dict[str, Any]) -> None:
    first, second, *_ = texts(table(nat), "nat")
    assert first.startswith(TAKEN)
    assert first.endswith("accept")
    assert "fib saddr . oif type local accept" in second


def test_what_ipsec_takes_loses_the_mark_of_its_turn_and_keeps_the_bits_of_others() -> None:
    assert "ct mark set ct mark & 0xc0ffffff" in texts(table(), "nat")[0]


@pytest.mark.parametrize("chain", ["kill_switch", "guard_u1", "guard_u2"])
def test_nothing_is_dropped_before_ipsec_was_let_pass(chain: str) -> None:
    rules = texts(table(), chain)
    assert rules.index(f"{TAKEN} accept") < min(n for n, text in enumerate(rules) if "drop" in text)


def test_packets_of_the_box_that_ipsec_takes_are_not_chosen_for() -> None:
    rules = texts(table(), "classify_local")
    assert rules.index(f"{TAKEN} accept") < rules.index("goto first")


def test_only_what_did_not_come_out_of_a_tunnel_is_tied_to_the_uplink_that_it_came_by() -> None:
    arrival = [text for text in texts(table(), "classify") if "@arrival" in text]
    assert arrival == ["meta secpath missing iifname vmap @arrival"]


def test_a_kernel_without_ipsec_is_not_asked_for_it() -> None:
    rendered = table(ipsec=False).render()
    assert TAKEN not in rendered
    assert "secpath" not in rendered
    assert "iifname vmap @arrival" in rendered


def test_the_kernel_goes_on_knowing_ipsec_when_links_come_and_go() -> None:
    for known in (True, False):
        seen = replace(world(2), xfrm=known)
        assert seen.with_link(replace(link(1), up=False)).xfrm is known
        assert seen.with_link(link(2)).xfrm is known
        assert seen.without_link("wan1").xfrm is known
