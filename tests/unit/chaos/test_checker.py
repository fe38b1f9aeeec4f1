from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from chaos.checker import check
from chaos.expected import acted, make_calendar
from chaos.history import (
    Deed,
    Ending,
    Flow,
    History,
    Inbound,
    Life,
    Repair,
    Rules,
    Sample,
    Span,
    Vitals,
    merged,
    outside,
)
from chaos.plan import FAULTS, MARGIN, TAMPERING, Action, Kind, Plan, Settings, make_plan
from polywan.core.net import Family
from polywan.lab.traffic import Attempt
from polywan.lab.witness import Move

PLAN = Plan(
    seed=1,
    seconds=60.0,
    uplinks=3,
    trunk=False,
    both_methods=False,
    first=Settings(weights=(1, 1, 1)),
    actions=(),
)
RULES = Rules(
    loss=0.5, silence=1.5, flood=13.0, repair=2.0, answer=2.0, back=5.0, hold=0.9, free=4.0, hang=4.0, patience=1.5
)
VITALS = Vitals(20, 4, 50.0)
WELL = Ending(
    at=60.0,
    back=0.0,
    states={},
    differences=(),
    reload_writes=0,
    restart_writes=0,
    restart_changes=(),
    deviation=0.5,
    old=VITALS,
    young=VITALS,
    left_behind=(),
)


def history(*deeds: Deed, lives: tuple[Life, ...] = (Life(-5.0, -4.0),), ending: Ending | None = WELL) -> History:
    return History(plan=PLAN, rules=RULES, begun=0.0, ended=60.0, deeds=list(deeds), lives=list(lives), ending=ending)


def deed(at: float, kind: Kind, uplink: int = 0) -> Deed:
    return Deed(Action(at, kind, uplink), at, at + 0.01)


def flow(**lived: object) -> Flow:
    made = Flow(name="f", protocol="tcp", role="talk", family=Family.V4, uplink=1, born=0.0, last=0.0)
    return replace(made, **lived)  # type: ignore[arg-type]  # named by each test


def attempt(started: float, *, error: str = "", ended: float | None = None, uplink: int = 1) -> Attempt:
    return Attempt(
        family=Family.V4,
        started=started,
        connected=None if error else started,
        ended=started + 0.01 if ended is None else ended,
        uplink=None if error else uplink,
        error=error,
    )


def found(run: History) -> list[str]:
    return [violation.invariant for violation in check(run)]


CUT = (deed(10.0, Kind.CUT, 1), deed(30.0, Kind.RESTORE, 1))
SILENCE = (deed(10.0, Kind.SILENCE, 1), deed(30.0, Kind.ANSWERS, 1))
FLAP = (deed(10.0, Kind.CUT, 2), deed(12.0, Kind.RESTORE, 2))
DEAD = (Life(-5.0, -4.0, 9.0), Life(14.0, 15.0))


def test_a_run_in_which_nothing_happens_is_good() -> None:
    run = history()
    run.flows.append(flow(last=60.0))
    run.attempts += [attempt(t) for t in (1.0, 2.0)]
    assert check(run) == []


@pytest.mark.parametrize(
    ("deeds", "lived"),
    [
        (FLAP, {"broken": 11.0, "error": "ECONNRESET"}),
        (FLAP, {"moves": [Move(11.0, 1, 2)]}),
        (FLAP, {"gaps": [Span(11.0, 21.0)]}),
        ((deed(10.0, Kind.RELOAD),), {"broken": 10.2}),
        ((deed(10.0, Kind.KILL), deed(14.0, Kind.START)), {"broken": 15.5}),
        ((deed(10.0, Kind.FLUSH_RULES),), {"gaps": [Span(10.0, 25.0)]}),
        ((deed(10.0, Kind.FLUSH_NFT),), {"gaps": [Span(10.0, 25.0)]}),
        ((deed(10.0, Kind.FLUSH_NFT),), {"broken": 10.1, "error": "ECONNRESET"}),
    ],
)
def test_a_flow_of_a_healthy_uplink_must_not_move_break_or_hang(
    deeds: tuple[Deed, ...], lived: dict[str, object]
) -> None:
    run = history(*deeds)
    run.flows.append(flow(**lived))
    assert found(run) == ["I1"]


@pytest.mark.parametrize(
    ("deeds", "lived"),
    [
        (CUT, {"broken": 11.0}),
        (SILENCE, {"broken": 13.0}),
        (SILENCE, {"moves": [Move(12.0, 1, 2)]}),
        (SILENCE, {"gaps": [Span(10.0, 12.0)]}),
        ((deed(10.0, Kind.SILENCE, 1), deed(10.5, Kind.ANSWERS, 1)), {"broken": 13.0}),
        ((deed(10.0, Kind.READDRESS, 1),), {"broken": 10.3}),
        ((deed(10.0, Kind.FLUSH_TRACKING),), {"broken": 20.0}),
        ((deed(10.0, Kind.FLUSH_RULES),), {"gaps": [Span(10.0, 12.5)]}),
    ],
)
def test_what_an_accident_explains_is_no_violation(deeds: tuple[Deed, ...], lived: dict[str, object]) -> None:
    run = history(*deeds)
    run.flows.append(flow(**lived))
    assert found(run) == []


def test_a_flow_that_moved_is_judged_by_its_new_uplink() -> None:
    run = history(*SILENCE)
    run.flows.append(flow(protocol="udp", moves=[Move(12.0, 1, 2), Move(20.0, 2, 3)]))
    assert [str(v).partition(":")[0] for v in check(run)] == ["I1 at 20.00 s, f"]


def test_a_flow_of_a_lost_uplink_that_waits_for_ever_is_not_freed() -> None:
    run = history(*CUT)
    run.flows.append(flow(gaps=[Span(10.0, 30.0)]))
    assert found(run) == ["F"]


EXCHANGES = [Kind.READDRESS, Kind.REMAKE]


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_flow_that_waits_for_ever_after_its_uplink_was_given_another_address_is_not_freed(kind: Kind) -> None:
    run = history(deed(10.0, kind, 1))
    run.flows += [flow(gaps=[Span(10.0, 17.0)]), flow(gaps=[Span(10.0, 12.0)]), flow(broken=10.3)]
    run.flows.append(flow(uplink=2))
    assert found(run) == ["F"]


@pytest.mark.parametrize("kind", EXCHANGES)
@pytest.mark.parametrize(
    ("others", "lives"),
    [
        pytest.param((deed(9.0, Kind.CUT, 1), deed(12.0, Kind.RESTORE, 1)), (Life(-5.0, -4.0),), id="broken too"),
        pytest.param((deed(9.0, Kind.CUT, 2), deed(9.0, Kind.CUT, 3)), (Life(-5.0, -4.0),), id="nobody else is well"),
        pytest.param((deed(9.0, Kind.KILL),), (Life(-5.0, -4.0, 9.0), Life(10.1, 10.2)), id="nobody heard of it"),
    ],
)
def test_nobody_is_freed_after_an_exchange_that_nobody_could_act_upon(
    kind: Kind, others: tuple[Deed, ...], lives: tuple[Life, ...]
) -> None:
    run = history(*others, deed(10.0, kind, 1), lives=lives)
    run.flows.append(flow(gaps=[Span(10.0, 17.0)]))
    assert "F" not in found(run)


def test_a_flow_that_could_not_speak_while_its_uplink_was_lost_is_elsewhere_when_it_speaks_again() -> None:
    silent = flow(protocol="udp", role="tunnel", uplink=2, gaps=[Span(5.0, 20.0)], moves=[Move(20.0, 2, 3)], last=60.0)
    lost = history(*FLAP, deed(4.0, Kind.LINK_DOWN, 1), deed(19.0, Kind.LINK_UP, 1))
    lost.flows.append(silent)
    well = history()
    well.flows.append(silent)
    assert "I1" in found(well)
    assert [v for v in check(lost) if "moved" in str(v)] == []


def test_a_flow_that_is_moved_long_after_its_uplink_was_back_was_moved_for_nothing() -> None:
    run = history(deed(10.0, Kind.CUT, 1), deed(12.0, Kind.RESTORE, 1))
    run.flows.append(flow(protocol="udp", gaps=[Span(10.0, 25.0)], moves=[Move(25.0, 1, 2)], last=60.0))
    assert "I1" in found(run)


def test_what_waited_on_a_full_line_may_be_moved_when_that_line_breaks() -> None:
    moved = flow(protocol="udp", gaps=[Span(10.0, 20.5)], moves=[Move(20.5, 1, 2)], last=60.0)
    cut = (deed(20.0, Kind.CUT, 1), deed(40.0, Kind.RESTORE, 1))
    full = history(deed(5.0, Kind.FILL, 1), *cut, deed(42.0, Kind.DRAIN, 1))
    full.flows.append(moved)
    assert found(full) == []
    other = history(deed(5.0, Kind.FILL, 3), *cut, deed(42.0, Kind.DRAIN, 3))
    other.flows.append(moved)
    assert "I1" in found(other)
    well = history(deed(5.0, Kind.FILL, 1), deed(42.0, Kind.DRAIN, 1))
    well.flows.append(moved)
    assert "I1" in found(well)


def test_what_is_bound_to_an_address_of_the_first_uplink_waits_while_that_has_none() -> None:
    down = history(deed(10.0, Kind.LINK_DOWN, 1), deed(25.0, Kind.LINK_UP, 1))
    down.flows.append(flow(protocol="udp", role="tunnel", uplink=3, gaps=[Span(10.0, 25.0)], last=60.0))
    assert "I1" not in found(down)
    down.flows.append(flow(protocol="udp", role="talk", uplink=3, gaps=[Span(10.0, 25.0)], last=60.0))
    assert "I1" in found(down)
    cut = history(deed(10.0, Kind.CUT, 1), deed(25.0, Kind.RESTORE, 1))
    cut.flows.append(flow(protocol="udp", role="tunnel", uplink=3, gaps=[Span(10.0, 25.0)], last=60.0))
    assert "I1" in found(cut)
    # On a trunk it is the device that goes down.
    cut.plan = replace(PLAN, trunk=True)
    assert "I1" not in found(cut)
    silent = history(deed(10.0, Kind.SILENCE, 1), deed(25.0, Kind.ANSWERS, 1))
    silent.flows.append(flow(protocol="udp", role="tunnel", uplink=3, gaps=[Span(10.0, 45.0)], last=60.0))
    assert "I1" in found(silent)


def test_a_flow_that_was_freed_and_chose_a_full_line_may_wait_there() -> None:
    moved = flow(gaps=[Span(10.0, 15.5)], moves=[Move(15.4, 1, 2)], last=15.5)
    full = history(deed(5.0, Kind.FILL, 2), deed(10.0, Kind.READDRESS, 1), deed(40.0, Kind.DRAIN, 2))
    full.flows.append(moved)
    assert "F" not in found(full)
    for deeds in ((deed(5.0, Kind.FILL, 2), deed(10.2, Kind.DRAIN, 2)), (deed(5.0, Kind.FILL, 3),)):
        run = history(*deeds, deed(10.0, Kind.READDRESS, 1))
        run.flows.append(moved)
        assert "F" in found(run)
    empty = history(deed(10.0, Kind.READDRESS, 1))
    empty.flows.append(moved)
    assert "F" in found(empty)


def test_datagrams_that_chose_a_full_line_which_died_before_an_answer_came_are_not_judged() -> None:
    waited = flow(protocol="udp", gaps=[Span(10.0, 20.0)], moves=[Move(20.0, 1, 3)], last=60.0)
    fill, exchange = deed(5.0, Kind.FILL, 2), deed(10.0, Kind.READDRESS, 1)
    died = history(fill, exchange, deed(17.0, Kind.CUT, 2), deed(38.0, Kind.RESTORE, 2), deed(40.0, Kind.DRAIN, 2))
    died.flows.append(waited)
    assert "F" not in found(died)
    lived = history(fill, exchange, deed(40.0, Kind.DRAIN, 2))
    lived.flows.append(waited)
    assert "F" in found(lived)
    itself = history(deed(5.0, Kind.FILL, 1), exchange, deed(40.0, Kind.DRAIN, 1))
    itself.flows.append(waited)
    assert "F" in found(itself)
    short = history(fill, exchange, deed(11.0, Kind.DRAIN, 2))
    short.flows.append(waited)
    assert "F" in found(short)


def test_nobody_is_freed_while_no_other_uplink_is_well() -> None:
    run = history(*CUT, deed(9.0, Kind.SILENCE, 2), deed(9.5, Kind.SILENCE, 3))
    run.flows.append(flow(gaps=[Span(10.0, 30.0)]))
    assert found(run) == []


def test_nobody_is_freed_while_there_is_no_daemon() -> None:
    run = history(*CUT, deed(9.0, Kind.KILL), lives=(Life(-5.0, -4.0, 9.0),))
    run.flows.append(flow(gaps=[Span(10.0, 30.0)]))
    assert found(run) == []


def test_a_provider_that_sees_a_foreign_source_is_told_with_what_was_done_before() -> None:
    run = history(deed(10.0, Kind.FLUSH_RULES), deed(10.5, Kind.RELOAD))
    run.samples += [Sample(10.0, {1: 0, 2: 4}, {}), Sample(11.0, {1: 0, 2: 7}, {})]
    assert [str(violation) for violation in check(run)] == [
        (
            "I2 at 11.00 s, isp2: 3 packets with a foreign source within the last second\n"
            "    before it: ip rule flush protocol 200 (1.00 s); reload other settings (0.50 s)"
        )
    ]


FLUSHED = (deed(9.0, Kind.KILL), deed(10.0, Kind.FLUSH_NFT), deed(14.0, Kind.START))


def test_without_a_rule_set_and_a_daemon_foreign_sources_are_nobodys_fault_until_it_must_be_back() -> None:
    run = history(*FLUSHED, lives=DEAD)
    run.samples += [Sample(t, {1: count}, {}) for t, count in ((10.0, 0), (11.0, 5), (17.0, 9), (18.0, 9))]
    assert found(run) == []
    run.samples.append(Sample(19.0, {1: 10}, {}))
    assert found(run) == ["I2"]


def test_a_living_daemon_holds_sources_and_flows_while_the_rule_set_is_gone() -> None:
    run = history(deed(10.0, Kind.FLUSH_NFT))
    run.samples += [Sample(10.0, {1: 0}, {2: 0}), Sample(11.0, {1: 1}, {2: 1})]
    assert found(run) == ["I2", "I3"]


def test_nobody_holds_flows_while_the_rule_set_is_gone_and_the_daemon_too() -> None:
    run = history(*FLUSHED, lives=DEAD)
    run.flows.append(flow(gaps=[Span(10.0, 60.0)]))
    assert found(run) == []


def test_what_is_kept_in_must_not_be_seen_elsewhere() -> None:
    run = history(*CUT)
    run.samples += [Sample(10.0, {}, {2: 0}), Sample(11.0, {}, {2: 1})]
    assert found(run) == ["I3"]


@pytest.mark.parametrize(
    ("started", "ended", "expected"),
    [
        pytest.param(9.9, 14.9, [], id="begun before the verdict"),
        pytest.param(11.0, 16.0, [], id="begun within the detection time"),
        pytest.param(12.0, 17.0, ["I7"], id="begun after it"),
        pytest.param(20.0, 20.1, ["I7"], id="refused much later"),
    ],
)
def test_a_new_connection_succeeds_once_the_loss_must_be_known(
    started: float, ended: float, expected: list[str]
) -> None:
    run = history(*SILENCE)
    run.attempts.append(attempt(started, error="timeout", ended=ended))
    assert found(run) == expected


def test_a_dead_daemon_gets_its_detection_time_from_when_it_is_ready_again() -> None:
    run = history(deed(9.0, Kind.KILL), *SILENCE, deed(14.0, Kind.START), lives=DEAD)
    run.attempts += [attempt(t, error="timeout", ended=t + 5.0) for t in (12.0, 15.5)]
    assert found(run) == []
    run.attempts.append(attempt(16.6, error="timeout", ended=21.6))
    assert found(run) == ["I7"]


def test_a_daemon_that_died_is_no_excuse_while_nothing_else_happened() -> None:
    run = history(deed(9.0, Kind.KILL), deed(14.0, Kind.START), lives=DEAD)
    run.attempts.append(attempt(12.0, error="ENETUNREACH"))
    assert found(run) == ["I7"]


@pytest.mark.parametrize(
    ("lives", "kept"), [((Life(-5.0, -4.0, 9.0), Life(11.5, 12.0)), True), ((Life(-5.0, -4.0),), False)]
)
def test_a_flow_that_fell_silent_while_no_daemon_was_there_to_free_it_may_break_late(
    lives: tuple[Life, ...], kept: bool
) -> None:
    deeds = [deed(9.0, Kind.KILL), deed(10.0, Kind.LINK_DOWN, 1), deed(11.0, Kind.LINK_UP, 1), deed(11.5, Kind.START)]
    late = flow(gaps=[Span(10.1, 40.0)], broken=40.0, error="ECONNRESET", last=10.1)
    run = history(*(deeds if kept else deeds[1:3]), lives=lives)
    run.flows.append(late)
    assert ("I1" not in {v.invariant for v in check(run)}) is kept


@pytest.mark.parametrize("kept", [True, False])
def test_a_flow_that_was_lost_while_no_other_uplink_was_well_may_break_late(kept: bool) -> None:
    others = [deed(8.0, Kind.SILENCE, 2), deed(8.5, Kind.CUT, 3)]
    run = history(*(others if kept else others[:1]), deed(10.0, Kind.LINK_DOWN, 1), deed(11.0, Kind.LINK_UP, 1))
    run.flows.append(flow(gaps=[Span(9.9, 19.0)], broken=19.0, error="ECONNRESET", last=9.9))
    assert ("I1" not in found(run)) is kept


def test_a_flow_that_answered_after_its_uplink_came_back_may_not_break() -> None:
    others = [deed(8.0, Kind.SILENCE, 2), deed(8.5, Kind.CUT, 3)]
    run = history(*others, deed(10.0, Kind.LINK_DOWN, 1), deed(11.0, Kind.LINK_UP, 1))
    run.flows.append(flow(gaps=[Span(9.9, 12.0), Span(20.0, 20.2)], broken=20.2, error="ECONNRESET", last=20.0))
    assert "I1" in found(run)


def test_connections_may_fail_while_every_uplink_is_broken() -> None:
    deeds = [deed(10.0 + n / 10, Kind.SILENCE, n) for n in (1, 2, 3)]
    run = history(*deeds, *(deed(20.0 + n, Kind.ANSWERS, n) for n in (1, 2, 3)))
    run.attempts += [attempt(t, error="timeout", ended=t + 5.0) for t in (15.0, 20.5)]
    assert found(run) == []
    run.attempts.append(attempt(24.0, error="timeout", ended=29.0))
    assert found(run) == ["I7"]


def test_who_comes_in_by_a_healthy_uplink_is_answered() -> None:
    run = history(*CUT)
    run.inbound += [Inbound(1, attempt(20.0, error="timeout")), Inbound(2, attempt(20.0, error="timeout"))]
    assert [str(v).partition(":")[0] for v in check(run)] == ["I4 at 20.00 s, inbound tcp4 by isp2"]


@pytest.mark.parametrize(
    ("back", "lives", "expected"),
    [
        pytest.param(11.0, (Life(-5.0, -4.0),), [], id="in time"),
        pytest.param(12.5, (Life(-5.0, -4.0),), ["I6"], id="late"),
        pytest.param(None, (Life(-5.0, -4.0),), ["I6"], id="never"),
        pytest.param(None, DEAD, [], id="nobody there"),
    ],
)
def test_what_others_take_away_is_back_in_time(
    back: float | None, lives: tuple[Life, ...], expected: list[str]
) -> None:
    taken = deed(10.0, Kind.FLUSH_ROUTES, 2)
    run = history(deed(9.0, Kind.KILL), taken, lives=lives)
    run.repairs.append(Repair(taken, back))
    assert found(run) == expected


@pytest.mark.parametrize(("uplink", "expected"), [(2, []), (1, ["I6"])])
def test_routes_of_a_link_that_is_out_may_wait_for_it(uplink: int, expected: list[str]) -> None:
    taken = deed(10.0, Kind.FLUSH_ROUTES, uplink)
    run = history(deed(9.0, Kind.CUT, 2), taken, deed(14.0, Kind.RESTORE, 2))
    run.repairs.append(Repair(taken, None))
    assert found(run) == expected


def test_an_uplink_is_not_used_again_before_its_hold_down() -> None:
    run = history(*CUT)
    run.attempts += [attempt(10.2), attempt(31.5)]
    assert found(run) == []
    late = replace(attempt(30.5, ended=31.5), connected=31.5)
    run.attempts.append(late)
    assert found(run) == [], "its first SYN went by another uplink"
    run.attempts.append(attempt(30.5))
    assert found(run) == ["I7"]


def test_an_uplink_that_only_lost_echo_requests_has_no_hold_down_if_it_carried_something() -> None:
    run = history(deed(10.0, Kind.ECHO_LOST, 1), deed(30.0, Kind.ECHO_BACK, 1))
    run.attempts.append(attempt(30.5))
    assert found(run) == ["I7"]
    run.flows.append(flow(last=60.0))
    assert found(run) == []


@pytest.mark.parametrize("kind", [Kind.FLUSH_NFT, Kind.FLUSH_RULES, Kind.FLUSH_ROUTES])
def test_no_other_uplink_than_that_of_mains_default_is_excused_then(kind: Kind) -> None:
    run = history(deed(10.0, Kind.CUT, 3), deed(30.0, Kind.RESTORE, 3), deed(30.4, kind))
    run.attempts.append(attempt(30.5, uplink=3))
    assert "I7" in found(run)


@pytest.mark.parametrize("kind", [Kind.FLUSH_NFT, Kind.FLUSH_RULES, Kind.FLUSH_ROUTES])
def test_a_hold_down_is_not_kept_by_what_connects_while_what_is_ours_is_gone(kind: Kind) -> None:
    run = history(*CUT, deed(30.4, kind))
    run.attempts.append(attempt(30.5))
    assert found(run) == []


def test_a_daemon_that_ends_by_itself_or_complains_is_a_violation() -> None:
    run = history(lives=(Life(-5.0, -4.0, 20.0), Life(21.0, 22.0)))
    run.troubles.append((25.0, "Traceback (most recent call last):"))
    assert found(run) == ["I9", "I9"]


def test_an_uplink_keeps_its_mark() -> None:
    run = history()
    run.marks += [(0.0, {"isp1": (256, 6001)}), (9.0, {"isp1": (512, 6002)})]
    assert found(run) == ["I10"]


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ({"back": None}, "I7"),
        ({"differences": ("+ rule",)}, "I6"),
        ({"reload_writes": 1}, "I5"),
        ({"restart_writes": 1}, "I9"),
        ({"restart_changes": ("- ip rule: x",)}, "I9"),
        ({"deviation": 2.0}, "I11"),
        ({"old": replace(VITALS, descriptors=40)}, "I13"),
        ({"old": replace(VITALS, threads=40)}, "I13"),
        ({"old": replace(VITALS, memory=90.0)}, "I13"),
        ({"left_behind": ("+ ip rule: x",)}, "I14"),
    ],
)
def test_what_is_wrong_in_the_end_is_told(mistake: dict[str, object], expected: str) -> None:
    assert found(history(ending=replace(WELL, **mistake))) == [expected]  # type: ignore[arg-type]  # named above


def test_a_run_without_an_end_is_a_violation() -> None:
    assert found(history(ending=None)) == ["I9"]


def test_a_tunnel_must_not_move_while_its_uplink_is_well_and_has_nowhere_to_go_when_it_is_lost() -> None:
    comes = (deed(10.0, Kind.TUNNEL_COMES), deed(14.0, Kind.TUNNEL_GOES))
    run = history(*comes)
    run.flows.append(flow(protocol="udp", role="tunnel", moves=[Move(11.0, 1, 2)]))
    assert found(run) == ["I1"]
    run = history(*SILENCE)
    run.flows.append(flow(protocol="udp", role="tunnel", gaps=[Span(10.5, 31.0)]))
    assert found(run) == []


@pytest.mark.parametrize("kind", [Kind.CUT, Kind.SILENCE])
def test_a_fault_that_was_mended_before_a_daemon_could_see_it_does_not_wait_for_it(kind: Kind) -> None:
    short = (deed(10.0, kind, 1), deed(10.3, FAULTS[kind], 1))
    calendar = make_calendar(history(*short))
    assert calendar.faults[0].known <= 10.31 + RULES.silence


def test_lost_echo_requests_do_no_harm_when_targets_are_asked_by_tcp_as_well() -> None:
    run = history(deed(10.0, Kind.ECHO_LOST, 1))
    run.plan = replace(PLAN, both_methods=True)
    run.flows.append(flow(broken=15.0))
    assert found(run) == ["I1"]


SLOW = (deed(10.0, Kind.FILL, 1), deed(30.0, Kind.DRAIN, 1))


@pytest.mark.parametrize(
    ("lived", "expected"),
    [
        pytest.param({"gaps": [Span(11.0, 35.0)]}, [], id="waits"),
        pytest.param({"gaps": [Span(31.0, 59.0)]}, ["I1"], id="waits long after it"),
        pytest.param({"broken": 20.0, "error": "ECONNRESET"}, ["I1"], id="is reset"),
        pytest.param({"moves": [Move(20.0, 1, 2)]}, ["I1"], id="moves"),
        pytest.param({"uplink": 2, "gaps": [Span(11.0, 25.0)]}, ["I1"], id="waits on another uplink"),
    ],
)
def test_a_flow_of_a_full_line_may_wait_but_neither_end_nor_move(lived: dict[str, object], expected: list[str]) -> None:
    run = history(*SLOW)
    run.flows.append(flow(**lived))
    assert found(run) == expected


@pytest.mark.parametrize(
    ("error", "started", "expected"),
    [("timeout", 20.0, []), ("ECONNREFUSED", 20.0, ["I4", "I7"]), ("timeout", 31.0, ["I4", "I7"])],
)
def test_a_connection_may_run_out_of_time_while_a_line_is_full_but_is_not_refused(
    error: str, started: float, expected: list[str]
) -> None:
    run = history(*SLOW)
    tried = attempt(started, error=error, ended=started + 5.0)
    run.attempts.append(tried)
    run.inbound.append(Inbound(1, tried))
    assert sorted(found(run)) == expected


def test_a_full_line_is_no_excuse_for_who_comes_in_by_another() -> None:
    run = history(*SLOW)
    run.inbound.append(Inbound(2, attempt(20.0, error="timeout", ended=22.0)))
    assert found(run) == ["I4"]


def test_the_silence_of_a_full_line_may_be_noticed_later_and_its_loss_of_carrier_may_not() -> None:
    silent, cut = (
        make_calendar(history(SLOW[0], deed(20.0, kind, 1), deed(50.0, FAULTS[kind], 1), SLOW[1])).faults[0].known
        for kind in (Kind.SILENCE, Kind.CUT)
    )
    assert (silent, cut) == (20.01 + RULES.silence + RULES.flood, 20.01 + RULES.loss)


def test_who_was_not_given_the_processor_judges_nobody() -> None:
    run = history()
    run.stalls.append(Span(10.0, 13.0))
    run.attempts.append(attempt(11.0, error="timeout", ended=16.0))
    run.flows.append(flow(gaps=[Span(9.5, 16.0)]))
    assert found(run) == []


def test_a_need_is_met_by_one_life_without_a_break() -> None:
    run = history(lives=(Life(0.0, 1.0, 10.0), Life(11.0, 12.0, 13.0), Life(14.0, 15.0)))
    assert acted(run, 3.0, 2.0) == 5.0
    assert acted(run, 9.0, 2.0) == 17.0
    assert acted(run, 20.0, 2.0) == 22.0


def test_stretches_of_time_add_up() -> None:
    assert merged([Span(5.0, 6.0), Span(1.0, 3.0), Span(2.0, 4.0)]) == [Span(1.0, 4.0), Span(5.0, 6.0)]
    assert outside(Span(0.0, 10.0), [Span(-1.0, 2.0), Span(1.0, 3.0), Span(9.0, 20.0)]) == 6.0


SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_the_same_plan_each_time_and_mends_what_it_breaks(seed: int) -> None:
    plan = make_plan(seed, 60.0)
    assert plan == make_plan(seed, 60.0)
    assert [a.at for a in plan.actions] == sorted(a.at for a in plan.actions)
    assert all(MARGIN < a.at <= 60.0 for a in plan.actions)
    mends: dict[tuple[Kind, int], int] = {}
    host = dict.fromkeys(range(1, plan.uplinks + 1), 2)
    alive, tunnel = True, False
    full: set[int] = set()
    for action in plan.actions:
        if action.kind in FAULTS:
            assert not mends.get((FAULTS[action.kind], action.uplink))
            mends[FAULTS[action.kind], action.uplink] = 1
        elif action.kind in FAULTS.values():
            del mends[action.kind, action.uplink]
        elif action.kind is Kind.READDRESS:
            host[action.uplink] = action.host
        elif action.kind in (Kind.KILL, Kind.START):
            alive = action.kind is Kind.START
        elif action.kind in (Kind.TUNNEL_COMES, Kind.TUNNEL_GOES):
            assert tunnel is (action.kind is Kind.TUNNEL_GOES)
            tunnel = not tunnel
        elif action.kind in (Kind.FILL, Kind.DRAIN):
            assert (action.uplink in full) is (action.kind is Kind.DRAIN)
            full ^= {action.uplink}
    assert not mends
    assert not full
    assert not tunnel
    assert alive
    assert set(host.values()) == {2}


def test_tampering_is_never_so_dense_that_the_daemon_may_lose_patience() -> None:
    for seed in SEEDS:
        times = [a.at for a in make_plan(seed, 120.0).actions if a.kind in TAMPERING]
        assert all(later - earlier >= 2.5 for earlier, later in pairwise(times))


def _kinds(choose: Callable[[Plan], bool]) -> set[Kind]:
    return {a.kind for seed in SEEDS if choose(make_plan(seed, 120.0)) for a in make_plan(seed, 120.0).actions}


def test_every_kind_of_accident_happens_to_some_seed_that_has_the_devices_for_it() -> None:
    assert _kinds(lambda plan: plan.trunk) == set(Kind) - {Kind.FILL, Kind.DRAIN}
    assert _kinds(lambda plan: not plan.trunk) == set(Kind) - {Kind.REMAKE}
