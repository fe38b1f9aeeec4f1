"""What is heard changes the view."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from polywan.api.events import Events
from polywan.api.views.stream import Change
from polywan.top.view import FlowsRead, Lost, Pane, View, hear, next_sort
from support.documents import status, uplink
from support.screens import entry, flow, many, sample, text, three, view

NOW = datetime.now(UTC)


def names(made: View) -> list[str]:
    return [one.name for one in made.uplinks]


def change(made: View, **more: object) -> Change:
    document = made.status
    same = {name: getattr(document, name) for name in Change.__fields__ if hasattr(document, name)}
    return Change(**{**same, "time": "", "uplinks": (), "removed": (), "policies": None, **more})


def test_a_sample_is_measured_of_the_uplinks_and_joins_the_minute() -> None:
    made = view(minute=False)
    first = sample([uplink("fibre", rx_bps=9, tx_bps=8, connections=7, rtt_ms=None)])
    for _ in range(70):
        made = hear(made, first, NOW)
    assert len(made.samples) == 60
    fibre = made.status.uplinks[0]
    assert (fibre.rx_bps, fibre.tx_bps, fibre.connections, fibre.rtt_ms) == (9, 8, 7, None)
    assert made.rates("fibre") == ([9] * 60, [8] * 60)
    assert made.rates("dsl") == ([None] * 60, [None] * 60)


def test_a_change_replaces_removes_and_adds_uplinks_in_their_order() -> None:
    made = view()
    down = uplink("fibre", "down")
    made = hear(made, change(made, uplinks=(uplink("new"), down), removed=("dsl",), warnings=("look",)), NOW)
    assert names(made) == ["fibre", "lte", "new"]
    assert made.status.uplinks[0].state == "down"
    assert made.status.warnings == ("look",)
    assert made.status.policies == three().policies or made.status.policies


def test_a_daemon_that_is_lost_is_known_since_it_said_something_last() -> None:
    made = view(now=NOW)
    later = NOW + timedelta(seconds=9)
    made = hear(hear(made, Lost(problem="gone"), later), Lost(problem="still gone"), later)
    assert (made.problem, made.heard) == ("gone", NOW)
    made = hear(made, three(), later)
    assert (made.problem, made.heard) == ("", later)


def test_connections_that_cannot_be_read_leave_those_that_are_known() -> None:
    made = hear(view(), FlowsRead(problem="no answer"), NOW)
    assert made.flows is not None
    assert len(made.flows.rows) == 30
    assert made.flows.problem == "no answer"
    assert not made.problem


def test_the_selection_stays_with_its_connection() -> None:
    made = view(focus="connections", flow=1)
    rows = (flow(9), flow(8), flow(2), flow(1))
    assert hear(made, FlowsRead(rows=rows, total=4), NOW).flow == 2
    assert hear(made, FlowsRead(rows=rows[:1], total=1), NOW).flow == 0


def test_the_journal_is_shown_once_however_often_it_is_told() -> None:
    made = view()
    known = Events(schema=1, events=(entry(0), entry(1)), last=1, more=False, problem="")
    made = hear(hear(made, known, NOW), entry(2), NOW)
    assert [one.id for one in made.entries] == [0, 1, 2]
    # Of a long journal only the end is told again.
    later = Events(schema=1, events=(entry(2), entry(3)), last=3, more=False, problem="")
    assert [one.id for one in hear(made, later, NOW).entries] == [0, 1, 2, 3]
    # Another journal counts from the start.
    assert len(hear(made, entry(1, time="2026-12-01T00:00:00+00:00"), NOW).entries) == 4


def test_uplinks_are_sorted_by_their_state_traffic_and_name() -> None:
    made = view(status(uplink("c", rx_bps=1), uplink("a", "degraded"), uplink("b", "down", rx_bps=5)), minute=False)
    assert names(made) == ["c", "a", "b"]
    assert names(next_sort(made)) == ["b", "a", "c"]
    assert names(next_sort(next_sort(made))) == ["a", "b", "c"]
    assert names(next_sort(next_sort(next_sort(made)))) == ["a", "b", "c"]
    assert next_sort(next_sort(next_sort(next_sort(made)))) == made


def test_the_selected_uplink_stays_selected_in_another_order_and_the_first_is_when_it_is_gone() -> None:
    made = replace(view(), uplink="lte")
    assert made.place == 2
    assert next_sort(made).uplinks[next_sort(made).place].name == "lte"
    assert hear(made, change(made, removed=("lte",)), NOW).place == 0


VIEWS = st.builds(
    replace,
    st.sampled_from([view(), view(many()), view(status()), view(minute=False)]),
    below=st.sampled_from(["connections", "events", None]),
    focus=st.sampled_from(["uplinks", "connections", "events"]),
    uplink=st.sampled_from([None, "lte", "isp53", "gone"]),
    flow=st.integers(0, 40),
    problem=st.sampled_from(["", "no daemon answers"]),
    refused=st.sampled_from(["", "no\x1b[2J 电信"]),
    typing=st.none() | st.text(max_size=100),
    filter=st.text(max_size=10),
    pane=st.none()
    | st.builds(
        Pane,
        kind=st.sampled_from(["help", "uplink", "why"]),
        name=st.just("lte"),
        lines=st.tuples(st.text(max_size=200)),
        top=st.integers(0, 100),
    ),
)


@given(VIEWS, st.integers(1, 200), st.integers(1, 60))
def test_a_screen_fits_its_terminal_whatever_is_to_be_seen(made: View, columns: int, rows: int) -> None:
    lines = text(made, columns, rows)
    assert len(lines) == rows
    assert max(map(cell_len, lines)) <= columns
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("uplinks", range(1, 60, 7))
def test_the_selected_line_is_always_on_the_screen(uplinks: int) -> None:
    for name in (f"isp{uplinks}", "isp1"):
        made = replace(view(many(uplinks)), uplink=name)
        for rows in (12, 24, 50):
            assert [line for line in text(made, 80, rows) if line.startswith(f"> {name} ")], rows
