"""Large lists are declared ahead of their use: the transaction that uses them is small, and never relies on less."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from polywan.core.engine import list_preload
from polywan.core.errors import KernelError
from polywan.core.plan.plan import ActualState, NftBatch
from polywan.core.ruleset.model import PART, PIECE, declare_texts
from polywan.core.state.events import ConfigLoaded, ListsPreloaded, LookupsChanged, ReadDone
from polywan.core.state.state import State
from polywan.core.world.lookups import Lookups, PrefixList
from polywan.daemon.loop import Daemon as Loop
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.fake.nft import transact
from polywan.probe.fake import FakeProber
from support.engine_world import Engine, config, world

PATH = "/etc/polywan/list"
NAME = "list_4_bbbbbbbb"


def large(digest: str) -> PrefixList:
    return PrefixList(digest, v4=tuple(f"10.{n >> 8}.{n & 255}.0/24" for n in range(2 * PIECE + 1)))


OLD, NEW = large("aaaaaaaa"), large("bbbbbbbb")


def running() -> Engine:
    daemon = Engine(config(2, rules=[{"list": PATH, "uplink": "u2"}]), world(2))
    daemon.feed(LookupsChanged(known(OLD)))
    return daemon


def pieces(daemon: Engine, found: PrefixList | None = None) -> list[str]:
    ahead = list_preload.ahead([found or NEW], daemon.state)
    return [text for name, nftset in ahead.items() for text in declare_texts(name, nftset)]


def known(found: PrefixList) -> Lookups:
    return Lookups(lists={PATH: found})


def texts(daemon: Engine, event: object) -> list[str]:
    plans = daemon.plans(daemon.feed(event))
    return [op.text for apply in plans for op in apply.plan.ops if isinstance(op, NftBatch)]


def holding(daemon: Engine, *names: str) -> ActualState:
    actual = daemon.state.known.actual
    assert actual is not None
    assert actual.nft is not None
    sets = {**actual.nft.sets, **dict.fromkeys(names, frozenset[int | str]())}
    return replace(actual, nft=replace(actual.nft, sets=sets))


def test_only_large_lists_that_the_kernel_does_not_hold_are_staged() -> None:
    small = PrefixList("cccccccc", v4=("10.0.0.0/8",))
    assert list(list_preload.ahead([OLD, NEW, small], running().state)) == [NAME]


def test_before_the_first_decision_nothing_is_staged() -> None:
    assert list_preload.ahead([NEW], State()) == {}


def test_a_set_that_was_staged_is_used_without_being_filled_again() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    (text,) = texts(daemon, LookupsChanged(known(NEW)))
    assert f"@{NAME}" in text
    assert "10.0.1.0/24" not in text
    assert "delete set inet polywan list_4_aaaaaaaa" in text
    assert daemon.state.done.staged == frozenset()


def test_a_set_that_was_staged_is_used_by_a_new_configuration_too() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    more = config(2, rules=[{"list": PATH, "uplink": "u1"}])
    (text,) = texts(daemon, ConfigLoaded(more, lookups=known(NEW)))
    assert f"@{NAME}" in text
    assert "10.0.1.0/24" not in text


def test_without_staging_the_set_comes_with_the_decision() -> None:
    (text,) = texts(running(), LookupsChanged(known(NEW)))
    assert "10.0.1.0/24" in text


def test_a_read_in_between_neither_removes_a_staged_set_nor_counts_on_it() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    assert texts(daemon, ReadDone(world(2), holding(daemon, NAME))) == []
    daemon.feed(ListsPreloaded(frozenset()))
    (text,) = texts(daemon, LookupsChanged(known(NEW)))
    assert "10.0.1.0/24" in text


def test_a_set_that_nothing_needs_in_the_end_is_removed() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    daemon.feed(ListsPreloaded(frozenset()))
    assert texts(daemon, ReadDone(world(2), holding(daemon, NAME))) == [f"delete set inet polywan {NAME}\n"]


def test_a_table_that_somebody_removed_takes_the_staged_set_along() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    assert daemon.state.known.actual is not None
    daemon.feed(ReadDone(world(2), replace(daemon.state.known.actual, nft=None)))
    (text,) = texts(daemon, LookupsChanged(known(NEW)))
    assert "10.0.1.0/24" in text


def test_other_lookups_leave_a_set_staged() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    daemon.feed(LookupsChanged(replace(known(OLD), utc_offset=3600)))
    assert daemon.state.done.staged == {NAME}


@pytest.mark.parametrize("refused", [False, True])
def test_the_loop_declares_large_lists_and_takes_back_what_was_refused(tmp_path: Path, *, refused: bool) -> None:
    async def story() -> None:
        daemon = running()
        assert daemon.state.decision.desired is not None
        kernel = FakeKernel()
        kernel.nft = transact(None, daemon.state.decision.desired.nft.render())
        if refused:
            kernel.fail_next(NftBatch, 12)
        loop = Loop(kernel, FakeProber(lambda order, target: 0.001), daemon.state, tmp_path)
        await loop.stage([OLD, NEW])
        assert kernel.nft is not None
        assert (NAME in kernel.nft.sets) is not refused

    asyncio.run(story())


def test_a_declaration_leaves_what_else_is_there() -> None:
    daemon = running()
    assert daemon.state.decision.desired is not None
    before = after = transact(None, daemon.state.decision.desired.nft.render())
    for text in pieces(daemon):
        after = transact(after, text)
    assert before is not None
    assert after is not None
    assert {**before.sets, NAME: frozenset()} == after.sets
    assert (before.chains, before.maps) == (after.chains, after.maps)


def test_a_list_comes_in_pieces_that_together_are_all_of_it() -> None:
    assert len(pieces(running())) == 3
    listed = [re.findall(r"[0-9.]+/[0-9]+", text) for text in pieces(running())]
    assert sorted(itertools.chain(*listed)) == sorted(NEW.v4)


def test_nothing_goes_on_when_the_table_was_lost_between_two_pieces() -> None:
    daemon = running()
    assert daemon.state.decision.desired is not None
    first, *rest = pieces(daemon)
    transact(transact(None, daemon.state.decision.desired.nft.render()), first)
    table = transact(None, daemon.state.decision.desired.nft.render())
    for text in rest:
        with pytest.raises(KernelError):
            transact(table, text)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_list_that_was_left_half_declared_is_declared_anew_or_removed(*, wanted: bool) -> None:
    daemon = running()
    torn = (NAME, f"{PART}4_bbbbbbbb")
    if wanted:
        daemon.feed(LookupsChanged(known(NEW)))
    (text,) = texts(daemon, ReadDone(world(2), holding(daemon, *torn)))
    assert f"delete set inet polywan {torn[1]}" in text
    assert (f"flush set inet polywan {NAME}" in text, "10.0.1.0/24" in text) == (wanted, wanted)
    assert (f"delete set inet polywan {NAME}" in text) is not wanted


def test_a_list_that_is_being_staged_is_not_taken_for_a_torn_one() -> None:
    daemon = running()
    daemon.feed(ListsPreloaded(frozenset({NAME})))
    assert texts(daemon, ReadDone(world(2), holding(daemon, NAME, f"{PART}4_bbbbbbbb"))) == []


def test_an_element_that_is_no_prefix_is_refused() -> None:
    bad = PrefixList("dddddddd", v4=("nonsense",) * list_preload.LARGE_LIST)
    with pytest.raises(KernelError):
        transact(None, pieces(running(), bad)[0])
