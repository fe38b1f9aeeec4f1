from __future__ import annotations

import io
import json
from collections import Counter

import pytest

from polywan.config.loading.loader import load_text
from polywan.core.net import Family
from polywan.lab.scenario import Report, Share, configuration, weights_of
from polywan.lab.topology import describe
from polywan.lab.traffic import Attempt, deviation, error_name, shares
from polywan.lab.verdict import Step, judge, promises
from polywan.lab.view import as_json, print_report
from polywan.lab.witness import Move, Witness

CUT = Step(name="isp1 dies", kind="carrier", at=100.0, done=100.001, until=110.0, dead=1, noticed=0.002, returned=4.0)
SILENCE = Step(
    name="isp1 is silent", kind="silence", at=100.0, done=100.0, until=110.0, dead=1, noticed=2.5, returned=4.0
)
CRASH = Step(name="killed", kind="crash", at=100.0, done=100.0, until=110.0)


def attempt(started: float, connected: float | None = None, error: str = "") -> Attempt:
    ended = (started if connected is None else connected) + 0.001
    return Attempt(family=Family.V4, started=started, connected=connected, ended=ended, uplink=1, error=error)


def flow(uplink: int, *, broken: float | None = None, moves: tuple[Move, ...] = (), born: float = 0.0) -> Witness:
    return Witness(
        protocol="tcp" if broken else "udp",
        family=Family.V4,
        uplink=uplink,
        born=born,
        last=born,
        broken=broken,
        error="ECONNRESET" if broken else "",
        moves=list(moves),
    )


def test_a_connection_that_was_open_when_its_uplink_died_is_not_a_failed_new_one() -> None:
    event = judge(CUT, [attempt(99.999, 100.0005, "ECONNRESET")], [])
    assert (event.tried, event.failed) == (0, 0)


def test_a_connection_in_its_handshake_when_its_uplink_died_must_succeed() -> None:
    lost = Attempt(family=Family.V4, started=99.9, connected=None, ended=104.9, uplink=None, error="timeout")
    assert judge(CUT, [lost], []).failed == 1


def test_a_connection_that_a_crash_of_the_daemon_broke_is_a_failure() -> None:
    assert judge(CRASH, [attempt(99.999, 100.0, "ECONNRESET")], []).failed == 1


def test_connections_of_another_time_do_not_count() -> None:
    event = judge(CUT, [attempt(99.0, 99.001), attempt(110.5, None, "timeout")], [])
    assert (event.tried, event.failed) == (0, 0)


def test_silence_excuses_what_was_started_before_it_could_be_noticed_and_nothing_later() -> None:
    early, late = attempt(102.9, None, "timeout"), attempt(103.1, None, "timeout")
    assert judge(SILENCE, [early], []).late == 0
    assert judge(SILENCE, [early, late], []).late == 1


def test_a_flow_of_the_dead_uplink_may_move_and_counts_as_freed() -> None:
    event = judge(CUT, [], [flow(1, moves=(Move(100.2, 1, 2),)), flow(1, broken=100.5)])
    assert (event.stranded, event.hung, event.disturbed) == (2, 0, ())
    assert event.freed == pytest.approx(0.5)


def test_a_flow_that_stays_on_the_dead_uplink_hangs() -> None:
    assert judge(CUT, [], [flow(1)]).hung == 1


def test_a_flow_of_a_healthy_uplink_may_neither_move_nor_break() -> None:
    event = judge(CUT, [], [flow(2, moves=(Move(101.0, 2, 3),)), flow(3, broken=102.0)])
    assert event.disturbed == ("udp4 of isp2 moved from isp2 to isp3", "tcp4 of isp3 broke (ECONNRESET)")


def test_a_flow_that_moved_away_may_not_be_moved_back() -> None:
    restless = flow(1, moves=(Move(100.2, 1, 2), Move(105.0, 2, 1)))
    assert judge(CUT, [], [restless]).disturbed == ("udp4 of isp1 moved from isp2 to isp1",)


def test_all_promises_are_held_when_nothing_was_lost() -> None:
    events = [judge(step, [attempt(101.0, 101.001)], [flow(2)]) for step in (CUT, SILENCE, CRASH)]
    assert all(promise.held for promise in promises(events, [0.5], spoofed=0))


@pytest.mark.parametrize(("deviations", "spoofed"), [([1.5], 0), ([0.0], 1)])
def test_a_wrong_share_or_a_wrong_source_breaks_a_promise(deviations: list[float], spoofed: int) -> None:
    assert not all(promise.held for promise in promises([], deviations, spoofed))


def test_a_loss_that_nobody_noticed_breaks_a_promise() -> None:
    unseen = Step(name="x", kind="carrier", at=1.0, done=1.0, until=9.0, dead=1)
    assert [promise.held for promise in promises([judge(unseen, [], [])], [], 0)].count(False) == 2


def test_the_deviation_is_that_of_the_worst_uplink() -> None:
    assert deviation(Counter({1: 3, 2: 2, 3: 1}), (3, 2, 1)) == 0
    assert deviation(Counter({1: 4, 2: 2}), (3, 2, 1)) == 1
    assert shares([1, None, 2, 1]) == {1: 2, 2: 1}


def test_errors_have_their_usual_names() -> None:
    assert error_name(TimeoutError()) == "timeout"
    assert error_name(OSError(111, "x")) == "ECONNREFUSED"
    assert error_name(ConnectionError()) == "ConnectionError"


def test_few_uplinks_have_different_weights_and_many_equal_ones() -> None:
    assert weights_of(3) == (3, 2, 1)
    assert set(weights_of(53)) == {1}


def test_the_labs_configuration_is_valid() -> None:
    config = load_text(configuration(describe(3), (3, 2, 1)))
    assert [config.weight_of(name) for name in config.uplinks] == [3, 2, 1]


def report() -> Report:
    events = (judge(CUT, [attempt(101.0, 101.001)], [flow(1, broken=100.5)]),)
    return Report(
        uplinks=2,
        seconds=20.0,
        shares=(Share(what="TCP over IPv4", weights=(1, 1), seen=(5, 5), lost=0, deviation=0.0),),
        events=events,
        promises=promises(events, [0.0], 0),
        timings={"reload": 3.25},
        troubles=(),
    )


def test_the_report_is_one_json_document_with_a_verdict() -> None:
    document = json.loads(as_json(report()))
    assert document["schema"] == 1
    assert document["held"] is True
    assert document["events"][0]["step"]["name"] == "isp1 dies"


def test_the_printed_report_has_no_colour_off_a_terminal() -> None:
    stream = io.StringIO()
    print_report(report(), stream)
    assert "\x1b" not in stream.getvalue()
    assert "6 of 6 promises kept" in stream.getvalue()
