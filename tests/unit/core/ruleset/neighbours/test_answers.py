"""The chains by which a UDP service that names no source answers where it was asked."""

from __future__ import annotations

from polywan.core.ruleset.model import NftState, change_text, state_of, unread
from polywan.core.ruleset.neighbours.answers import answer_chains, answer_maps, answer_sets
from support.engine_world import Engine, config, world


def test_answers_get_their_source_before_connection_tracking_sees_them() -> None:
    hook = answer_chains()["answers"].hook
    assert hook is not None
    assert hook.hook == "output"
    assert hook.priority < -200  # NF_IP_PRI_CONNTRACK


def test_what_asked_at_the_source_that_an_answer_has_is_left_alone_first() -> None:
    texts = [rule.text for rule in answer_chains()["answers"].rules]
    kept = next(n for n, text in enumerate(texts) if "@asked_pairs accept" in text)
    assert kept < next(n for n, text in enumerate(texts) if "ip saddr set" in text)


def test_only_udp_from_outside_that_begins_there_is_remembered_for_sockets_without_an_address() -> None:
    texts = [rule.text for rule in answer_chains()["asked"].rules]
    first = texts.index("socket wildcard 1 goto remember")
    assert first == len(texts) - 1
    assert [text for text in texts[:first] if text.endswith("accept")] == texts[:first]
    assert {"meta l4proto != udp accept", "iifname != @uplinks accept", "ct direction reply accept"} <= set(
        texts[:first]
    )


def test_what_packets_have_written_is_no_difference() -> None:
    names = {*answer_sets(), *answer_maps()}
    assert all(map(unread, names))
    desired = Engine(config(2), world(2)).state.decision.desired
    assert desired is not None
    actual = state_of(desired.nft)
    assert isinstance(actual, NftState)
    assert change_text(desired.nft, actual) == ""
