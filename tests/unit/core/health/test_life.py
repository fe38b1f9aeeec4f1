from dataclasses import replace
from ipaddress import ip_address, ip_network
from math import inf

import pytest

from polywan.config import HealthSettings
from polywan.core.health import life as lf
from polywan.core.health import quality as ql
from polywan.core.health import rounds as hl
from polywan.core.health.life import Inside, Life, Moved, Watched
from polywan.core.health.quality import Measure
from polywan.core.health.rounds import Health, ProbeState
from polywan.core.net import Family
from polywan.core.world.conntrack import Flow

SETTINGS = HealthSettings()
FAST = HealthSettings(interval=0.2, timeout=0.4)
TARGETS = [t for t in SETTINGS.targets if t.version == 4]
UP = hl.initial(Health.UP, "has a path", 0.0)
KEY = ("dsl", Family.V4)

WATCHED = Watched("dsl", Family.V4, 0x100, (ip_network("100.64.1.0/24"),))
INSIDE = Inside(frozenset({ip_address("100.64.1.2")}), (ip_network("192.168.15.0/24"),))
UPLOAD = Flow(
    Family.V4,
    6,
    "192.168.15.10",
    4000,
    "203.0.113.10",
    443,
    reply_destination="100.64.1.2",
    state="ESTABLISHED",
    mark=0x100,
    bytes_up=100_000,
    bytes_down=5_000,
)


def received(*flows: Flow) -> list[int]:
    return [back for _, back, _ in lf.counters(flows, [WATCHED], INSIDE).values()]


def silent_rounds(state: ProbeState, count: int, at: float, settings: HealthSettings = SETTINGS) -> ProbeState:
    """Send rounds that nobody answers, a quarter of the interval apart; all have timed out at `at`."""
    for n in range(count):
        state = hl.start_round(state, settings, 3, at - settings.timeout - (count - n) * settings.interval / 4)
    for open_round in state.open:
        for target in TARGETS:
            state = hl.on_result(state, settings, open_round.number, target, None, at)
    return state


def test_packets_that_come_back_from_beyond_the_gateway_count() -> None:
    assert received(UPLOAD) == [5_000]


def test_what_the_gateway_itself_answers_is_no_sign_of_life() -> None:
    assert received(UPLOAD._replace(destination="100.64.1.1", port=53)) == []


@pytest.mark.parametrize("state", ["SYN_SENT", "SYN_RECV", "CLOSE", "TIME_WAIT", "LAST_ACK"])
def test_a_reset_or_a_half_made_connection_is_no_sign_of_life(state: str) -> None:
    assert received(UPLOAD._replace(state=state)) == []


def test_a_connection_of_another_uplink_is_none_of_this_one() -> None:
    assert received(UPLOAD._replace(mark=0x200)) == []


def test_of_a_connection_from_outside_what_the_client_sends_counts() -> None:
    incoming = UPLOAD._replace(client="198.51.100.7", destination="100.64.1.2", bytes_up=700, bytes_down=9_000)
    assert received(incoming) == [700]


@pytest.mark.parametrize("protocol", [1, 17, 47, 50])
def test_what_comes_from_outside_in_a_name_that_nobody_has_to_prove_is_no_sign_of_life(protocol: int) -> None:
    incoming = UPLOAD._replace(client="198.51.100.7", destination="100.64.1.2", bytes_up=700, bytes_down=0)
    assert received(incoming._replace(protocol=protocol, state="ASSURED")) == []
    assert received(UPLOAD._replace(protocol=protocol, state="ASSURED")) == [5_000]


def test_a_connection_whose_outer_end_is_not_known_proves_nothing() -> None:
    routed = UPLOAD._replace(client="10.9.9.9", reply_destination="10.9.9.9")
    assert received(routed) == []


def test_what_nobody_counted_proves_nothing() -> None:
    assert received(UPLOAD._replace(bytes_up=None, bytes_down=None)) == []


def test_only_what_has_grown_since_the_look_before_has_moved() -> None:
    other = UPLOAD._replace(client_port=4001)
    before = lf.counters([UPLOAD, other], [WATCHED], INSIDE)
    after = lf.counters([UPLOAD._replace(bytes_down=5_600), other], [WATCHED], INSIDE)
    assert lf.moved(before, after)[KEY].received == 600


def test_a_connection_that_was_not_seen_before_has_moved_nothing_yet() -> None:
    assert lf.moved({}, lf.counters([UPLOAD], [WATCHED], INSIDE)) == {}


def test_the_beginning_of_a_load_is_told_by_its_volume_at_its_rate() -> None:
    moved = Moved(sent=100_000, total=800_000)
    assert lf.loaded_since(moved, since=9.5, until=10.0, asked=0.0) == pytest.approx(6.0)


def test_a_load_that_is_older_than_the_first_question_counts_from_there() -> None:
    moved = Moved(sent=100_000, total=800_000)
    assert lf.loaded_since(moved, since=9.5, until=10.0, asked=9.0) == 9.0


def test_a_light_load_fills_no_queue() -> None:
    assert lf.loaded_since(Moved(sent=1_000, total=1_000), since=9.5, until=10.0, asked=0.0) == -inf


def test_a_daemon_that_has_just_begun_to_ask_waits_for_the_first_answer_out_of_a_full_queue() -> None:
    new = hl.initial(hl.Health.UP, "adopted", 100.0)
    state = silent_rounds(new, 2, 100.0, SETTINGS)
    state = hl.on_moved(state, SETTINGS, Moved(sent=50_000, total=5_000_000), 100.5, 100.75)
    state = silent_rounds(state, 8, 101.0, SETTINGS)
    assert state.waiting is None
    assert state.quality.busy


@pytest.mark.parametrize(("looked", "verdict"), [(-inf, False), (100.9, True), (98.0, False)])
def test_a_verdict_waits_for_a_look_on_a_box_that_looks_late(looked: float, verdict: bool) -> None:
    state = replace(hl.initial(hl.Health.UP, "up", 90.0), life=Life(looks=2, looked=looked), answered=95.0)
    state = silent_rounds(state, 4, 100.0, SETTINGS)
    assert (state.waiting is not None) is verdict


def test_it_does_not_wait_for_ever() -> None:
    state = replace(hl.initial(hl.Health.UP, "up", 90.0), life=Life(looks=2, looked=98.0), answered=95.0)
    state = silent_rounds(silent_rounds(state, 4, 100.0, SETTINGS), 4, 107.0, SETTINGS)
    assert state.waiting is not None


def test_after_a_suspend_it_begins_to_ask_anew() -> None:
    state = hl.resume(hl.start_round(UP, SETTINGS, 1, 10.0))
    assert hl.start_round(state, SETTINGS, 1, 5000.0).asked == 5000.0


@pytest.mark.parametrize("settings", [SETTINGS, FAST], ids=["default", "fast"])
def test_failed_rounds_of_an_uplink_with_signs_of_life_only_make_it_busy(settings: HealthSettings) -> None:
    state = hl.on_late(UP, settings, TARGETS[0], 1.4, 10.0)
    state = silent_rounds(state, settings.fall, 10.0 + settings.interval, settings)
    assert state.waiting is None
    assert state.quality.poor == (Measure.BUSY,)


@pytest.mark.parametrize(("settings", "limit"), [(SETTINGS, 3.0), (FAST, 1.0)], ids=["default", "fast"])
def test_a_verdict_is_due_in_time_after_the_last_sign_of_life(settings: HealthSettings, limit: float) -> None:
    # Rounds of an uplink without life end an eighth of the interval apart.
    assert lf.patience(settings) + settings.interval / 4 <= limit
    state = hl.on_late(UP, settings, TARGETS[0], 1.4, 10.0)
    state = silent_rounds(state, settings.fall, 10.0 + lf.patience(settings), settings)
    assert state.waiting is not None


def test_an_idle_line_that_falls_silent_gets_no_patience() -> None:
    assert silent_rounds(UP, SETTINGS.fall, 10.0).waiting is not None


def test_an_old_look_that_finds_packets_is_as_old_as_the_look_before_it() -> None:
    state = hl.on_moved(UP, SETTINGS, Moved(received=1_000), since=5.0, until=60.0)
    assert silent_rounds(state, SETTINGS.fall, 60.0).waiting is not None


def test_a_verdict_that_waits_is_dropped_at_a_sign_of_life() -> None:
    state = silent_rounds(UP, SETTINGS.fall, 10.0)
    assert hl.on_late(state, SETTINGS, TARGETS[0], 2.0, 10.5).waiting is None


def test_a_load_that_has_just_begun_is_given_time_until_its_queue_has_drained() -> None:
    state = replace(UP, answered=8.0, life=Life(loaded=8.5))
    assert silent_rounds(state, SETTINGS.fall, 12.0).waiting is None


def test_it_is_given_none_once_an_answer_has_come_through_that_queue() -> None:
    state = replace(UP, answered=8.0, life=Life(loaded=2.0, late_at=8.0, late=2.0))
    assert silent_rounds(state, SETTINGS.fall, 12.0).waiting is not None


def test_a_late_answer_is_told_apart_from_a_lost_one() -> None:
    state = silent_rounds(UP, 2, 10.0)
    state = hl.on_late(state, SETTINGS, TARGETS[0], 1.4, 10.1)
    (target,) = (t for t in state.quality.targets if t.address == TARGETS[0])
    assert (target.loss, target.late.bit_count(), target.rtt) == (0.5, 1, 1.4)


def test_a_busy_uplink_is_well_again_after_some_good_rounds() -> None:
    state = hl.on_late(UP, SETTINGS, TARGETS[0], 1.4, 10.0)
    state = silent_rounds(state, SETTINGS.fall, 11.0)
    for n in range(SETTINGS.fall):
        assert state.quality.busy
        state = hl.start_round(state, SETTINGS, 3, 12.0 + n)
        for target in TARGETS:
            state = hl.on_result(state, SETTINGS, state.number, target, 0.02, 12.1 + n)
    assert not state.quality.busy
    assert Measure.BUSY not in state.quality.poor


def test_a_long_way_is_given_more_time() -> None:
    far = hl.on_late(UP, SETTINGS, TARGETS[0], 1.2, 1.2)
    assert hl.timeout_of(far, SETTINGS) == SETTINGS.timeout  # nothing was asked yet
    far = hl.on_late(hl.on_result(far, SETTINGS, 1, TARGETS[0], None, 1.0), SETTINGS, TARGETS[0], 1.2, 1.2)
    assert hl.timeout_of(far, SETTINGS) == pytest.approx(1.5)


def test_an_uplink_that_is_down_and_far_away_is_given_the_time_to_come_back() -> None:
    state = hl.initial(Health.DOWN, "new here", 0.0)
    now = 0.0
    for _ in range(20):
        state = hl.start_round(state, SETTINGS, 3, now)
        timely = hl.timeout_of(state, SETTINGS) >= 2.4
        for target in TARGETS:
            rtt = 2.4 if timely else None
            state = hl.on_result(state, SETTINGS, state.number, target, rtt, now + 2.4)
            state = state if timely else hl.on_late(state, SETTINGS, target, 2.4, now + 2.4)
        now += 3.0
    assert state.health is Health.UP


def test_a_slow_answer_is_a_queue_only_if_it_was_faster_before() -> None:
    near = hl.start_round(UP, SETTINGS, 3, 0.0)
    for target in TARGETS:
        near = hl.on_result(near, SETTINGS, 1, target, 0.02, 0.02)
        near = hl.on_late(near, SETTINGS, target, 1.02, 3.0)
    assert near.quality.queue == pytest.approx(1.0, rel=0.01)


def test_packets_that_a_late_look_has_found_keep_an_uplink_until_the_next_look() -> None:
    """Looks a second apart, and a patience of a second: the packets may have come just before the look."""
    state = replace(hl.initial(hl.Health.UP, "up", 90.0), life=Life(looks=2, looked=99.0), answered=95.0)
    state = hl.on_moved(state, FAST, Moved(received=3000), 99.0, 100.0)
    state = hl.on_looked(state, FAST, 100.0, 100.0)
    state = silent_rounds(state, 4, 100.1, FAST)
    assert state.waiting is None
    state = hl.on_looked(state, FAST, 101.0, 101.0)
    assert state.waiting == 101.0


def test_a_look_that_never_comes_is_not_waited_for_for_ever() -> None:
    state = replace(hl.initial(hl.Health.UP, "up", 90.0), life=Life(looks=2, looked=99.0), answered=95.0)
    state = hl.on_looked(hl.on_moved(state, FAST, Moved(received=3000), 99.0, 100.0), FAST, 100.0, 100.0)
    state = silent_rounds(silent_rounds(state, 4, 100.1, FAST), 4, 106.1, FAST)
    assert state.waiting is not None


LOADED = replace(UP, quality=ql.occupied(UP.quality, "busy: answers come 2.0 s late (queue)"), life=Life(back_at=12.0))
"""The other family of the same line, which fills its queue."""


@pytest.mark.parametrize("settings", [SETTINGS, FAST], ids=["default", "fast"])
def test_a_family_is_only_busy_while_the_other_one_fills_the_line(settings: HealthSettings) -> None:
    state = hl.on_line(replace(UP, answered=8.0), settings, LOADED, 12.0)
    state = silent_rounds(state, settings.fall + 1, 12.2, settings)
    assert state.waiting is None
    assert state.quality.busy == "busy: the line is, as its other family shows; no answer of this one"


def test_it_is_down_when_the_other_one_falls_silent_too() -> None:
    state = hl.on_line(replace(UP, answered=8.0), FAST, LOADED, 12.0)
    assert silent_rounds(state, FAST.fall, 12.0 + lf.patience(FAST), FAST).waiting is not None


def test_it_is_down_when_it_stays_silent_for_longer_than_any_queue() -> None:
    late = replace(LOADED, life=Life(back_at=8.0 + lf.ONSET))
    state = hl.on_line(replace(UP, answered=8.0), FAST, late, 8.0 + lf.ONSET)
    assert silent_rounds(state, FAST.fall, 8.1 + lf.ONSET, FAST).waiting is not None


@pytest.mark.parametrize("other", [replace(LOADED, quality=UP.quality), replace(LOADED, health=Health.DOWN)])
def test_a_family_that_fills_nothing_excuses_nobody(other: ProbeState) -> None:
    state = hl.on_line(replace(UP, answered=8.0), FAST, other, 12.0)
    assert silent_rounds(state, FAST.fall, 12.1, FAST).waiting is not None


def test_what_a_family_shows_of_the_line_is_the_last_and_its_own() -> None:
    known = replace(UP, answered=8.0, life=Life(line_at=13.0))
    assert hl.on_line(known, FAST, LOADED, 13.0) is known
    other = replace(LOADED, life=Life(back_at=12.0, line_at=15.0))
    assert hl.on_line(replace(UP, answered=8.0), FAST, other, 15.0).life.line_at == 12.0


def test_a_verdict_that_waits_is_dropped_when_the_line_shows_life() -> None:
    state = replace(UP, answered=8.0, bad=FAST.fall, waiting=11.9)
    assert hl.on_line(state, FAST, LOADED, 12.0).waiting is None


def test_the_patience_with_a_full_line_counts_from_the_last_own_sign() -> None:
    line = Life(line_at=19.9)
    assert lf.alive(line, FAST, 8.0, 19.95)
    assert not lf.alive(line, FAST, 8.0, 20.0)
    assert lf.alive(replace(line, back_at=9.0), FAST, 0.0, 20.5)
