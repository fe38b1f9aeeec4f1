"""What the chains of a policy say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from polywan.core.net import Family
from polywan.core.resolved import resolve
from polywan.core.ruleset.model import NftTable, change_text, state_of
from support.engine_world import Engine, config, world


def table(**policy: Any) -> NftTable:
    """Return the table of two uplinks whose default policy is as given."""
    default = {"tiers": [["u1", "u2"]], **policy}
    daemon = Engine(config(2, policies={"default": default}), world(2))
    assert daemon.state.decision.desired is not None
    return daemon.state.decision.desired.nft


def in_other_order(text: str) -> str:
    """Read the keys of slots as libnftables 1.1.7 stores them."""
    slots = re.compile(r"(?<=typeof numgen inc mod 1024 : verdict; size 1024;\n\t\telements = ).*")
    return slots.sub(lambda elements: re.sub(r"\d+(?= :)", _other_order, elements[0]), text)


def _other_order(key: re.Match[str]) -> str:
    return str(int.from_bytes(int(key[0]).to_bytes(4, "big"), "little"))


def lines(table: NftTable, chain: str) -> list[str]:
    return [rule.text for rule in table.chains[chain].rules]


def test_a_hash_has_a_seed_that_is_written_down() -> None:
    text = lines(table(algorithm="source"), "policy_default")[0]
    assert "jhash ip saddr mod 1024 seed 0x706f6c79 vmap @slots_4_default" in text


@pytest.mark.parametrize("algorithm", ["weighted", "random", "source", "connection"])
def test_keys_are_written_so_that_a_library_of_the_other_byte_order_stores_the_same_table(algorithm: str) -> None:
    policy = config(2, policies={"default": {"tiers": [["u1", "u2"]], "algorithm": algorithm}})
    usual, other = (
        Engine(policy, replace(world(2), swapped_keys=swapped)).state.decision.desired for swapped in (False, True)
    )
    assert usual is not None
    assert other is not None
    assert state_of(other.nft) == state_of(usual.nft)
    assert in_other_order(other.nft.render()) == usual.nft.render() != other.nft.render()


def test_random_draws_from_the_same_slots_as_weighted() -> None:
    drawn, dealt = table(algorithm="random"), table()
    assert drawn.maps["slots_4_default"] == dealt.maps["slots_4_default"]
    assert "numgen random mod 2" in lines(drawn, "policy_default")[0]


@pytest.mark.parametrize(("family", "zero", "one"), [(4, "0.0.0.0", "0.0.0.1"), (6, "::", "::1")])
def test_even_sources_take_the_first_member_and_odd_ones_the_second(family: int, zero: str, one: str) -> None:
    assert table(algorithm="source-parity").maps[f"parity_{family}_default"].elements == {
        zero: "goto to_u1",
        one: "goto to_u2",
    }


def test_of_two_parities_the_one_that_is_left_takes_both() -> None:
    parity = {"algorithm": "source-parity", "tiers": [["u1", "u2"]]}
    daemon = Engine(config(2, policies={"default": parity}), world(2))
    daemon.carrier(1, carrier=False)
    assert daemon.state.decision.desired is not None
    assert set(daemon.state.decision.desired.nft.maps["parity_4_default"].elements.values()) == {"goto to_u2"}


def test_a_client_that_is_kept_is_looked_up_before_anything_is_chosen() -> None:
    texts = lines(table(affinity={"timeout": "5m"}), "policy_default")
    assert "ct mark set ip saddr map @affinity_4_default" in texts[0]
    assert "vmap @serving_4_default" in texts[1]
    assert "timeout 300s" in lines(table(affinity={"timeout": "5m"}), "remember_4_default")[0]


def test_only_serving_uplinks_are_kept() -> None:
    daemon = Engine(config(2, policies={"default": {"tiers": [["u1", "u2"]], "affinity": {}}}), world(2))
    daemon.carrier(1, carrier=False)
    assert daemon.state.decision.desired is not None
    assert daemon.state.decision.desired.nft.maps["serving_4_default"].elements == {0x200: "jump mark_u2"}


def test_pairs_of_ipv6_addresses_are_kept_by_a_hash() -> None:
    nft_table = table(affinity={"key": "source-destination"})
    assert "affinity_4_default.pairs" in nft_table.maps
    assert not any(name.startswith("affinity_6") for name in nft_table.maps)
    assert any("jhash ip6 saddr . ip6 daddr" in text for text in lines(nft_table, "policy_default"))


def test_clients_survive_every_change_of_the_table() -> None:
    kept, more = table(affinity={}), table(affinity={}, algorithm="random", last_resort="blackhole")
    text = change_text(more, state_of(kept))
    assert text
    assert "affinity" not in text.replace("@affinity", "").split("flush chain")[0]
    assert "delete table" not in text


def test_a_family_that_no_uplink_has_is_refused_and_not_left_to_main() -> None:
    daemon = Engine(config(1), world(1, [Family.V4]))
    assert daemon.state.decision.desired is not None
    assert "meta nfproto ipv6 reject with icmpx type host-unreachable" in lines(
        daemon.state.decision.desired.nft, "policy_default"
    )


def test_a_connection_whose_packets_are_dealt_out_may_leave_by_every_member() -> None:
    uplinks = {f"u{n}": {"interface": f"wan{n}", "nat": "none", "nat6": "native"} for n in (1, 2)}
    tunnel = {"algorithm": "per-packet", "tiers": [["u1", "u2"]]}
    daemon = Engine(config(2, uplinks=uplinks, policies={"tunnel": tunnel}), world(2))
    assert daemon.state.decision.desired is not None
    nft = daemon.state.decision.desired.nft
    mark = daemon.state.known.policy_marks["tunnel"].mark
    assert f"ct mark & 0x00003f00 == {mark:#010x} accept" in lines(nft, "guard_u1")
    assert set(nft.maps["slots_4_tunnel"].elements.values()) == {"goto carry_u1", "goto carry_u2"}
    assert nft.maps["per_packet"].elements == {mark: "goto by_tunnel"}


def test_policies_made_for_rules_are_told_in_words() -> None:
    rules = [{"to": ["192.0.2.1"], "uplink": "u1"}, {"to": ["192.0.2.2"], "only": ["u1", "u2"]}, {"policy": "default"}]
    assert set(resolve(config(2, rules=rules), {}).titles.values()) == {
        "policy default",
        "u1, or policy default without it",
        "only u1, u2",
    }
