"""Keys do what the help says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.top.asking import filter_words, flow_words, why_lines, why_words
from polywan.top.handling import HELP, AskWhy, Quit, Redraw, press
from polywan.top.view import FlowsRead, Pane, View, hear
from support.documents import status
from support.screens import entry, flow, view

KEYS = [
    "up", "down", "page up", "page down", "home", "end", "enter", "tab", "escape", "backspace", "erase",
    *"qwecsuph?/jk1 x",
]  # fmt: skip


def after(made: View, *keys: str) -> View:
    for key in keys:
        made, _ = press(made, key)
    return made


def selected(made: View) -> str:
    return made.uplinks[made.place].name


def test_arrows_move_through_the_uplinks_and_stop_at_both_ends() -> None:
    made = view()
    assert selected(made) == "fibre"
    assert selected(after(made, "down", "j")) == "lte"
    assert selected(after(made, "end", "down")) == "lte"
    assert selected(after(made, "down", "k", "up")) == "fibre"


def test_tab_goes_to_the_other_list_and_back() -> None:
    made = after(view(), "tab", "down", "page down")
    assert (made.focus, made.flow) == ("connections", 11)
    assert after(made, "tab").focus == "uplinks"
    assert after(view(below=None), "tab").focus == "uplinks"


def test_enter_shows_all_about_the_selected_uplink_and_q_goes_back_before_it_quits() -> None:
    made = after(view(), "down", "enter")
    assert made.pane == Pane(kind="uplink", name="dsl")
    made, order = press(made, "q")
    assert (made.pane, order) == (None, None)
    assert press(made, "q")[1] == Quit()


def test_enter_on_an_event_shows_all_about_its_uplink() -> None:
    made = after(hear(view(), entry(2, uplink="lte"), datetime.now(UTC)), "e")
    assert after(made, "enter").pane == Pane(kind="uplink", name="lte")
    assert after(made, "down", "enter").pane == Pane(kind="uplink", name="dsl")


def test_w_asks_why_for_the_selected_connection() -> None:
    made = after(view(), "tab", "down")
    assert made.flows is not None
    assert press(made, "w")[1] == AskWhy(made.flows.rows[1])
    assert press(made, "enter")[1] == AskWhy(made.flows.rows[1])


def test_w_without_a_selected_connection_says_what_to_do() -> None:
    made, order = press(view(), "w")
    assert order is None
    assert (made.focus, made.refused) == ("connections", "select a connection, then press w again")
    assert press(hear(made, FlowsRead(), datetime.now(UTC)), "w")[1] is None


def test_c_and_e_change_what_is_below_and_a_second_time_leave_only_uplinks() -> None:
    assert (after(view(), "e").below, after(view(), "e").focus) == ("events", "events")
    assert (after(view(), "e", "e").below, after(view(), "e", "e").focus) == (None, "uplinks")
    assert after(view(), "c").below is None
    assert after(view(), "c", "c").below == "connections"


def test_s_sorts_the_list_with_the_selection() -> None:
    assert after(view(), "s").uplink_sort == "worst first"
    made = after(view(), "tab", "down", "s")
    assert (made.flow_sort, made.flow, made.uplink_sort) == ("age", 0, "file")


def test_u_and_p_change_how_things_are_written() -> None:
    assert after(view(), "u").display.in_bytes
    assert not after(view(), "u", "u").display.in_bytes
    assert after(view(), "h", "p").display.private


def test_a_filter_is_typed_and_taken_when_it_makes_sense() -> None:
    made = after(view(), "/", *"tpc", "backspace", "erase", *"tcp :443", "enter")
    assert (made.filter, made.typing) == ("tcp :443", None)
    assert flow_words(made) == {"proto": "tcp", "port": "443", "sort": "bytes", "limit": "200", "offset": "0"}
    again = after(made, "/", *"x", "escape")
    assert (again.filter, again.typing) == ("tcp :443", None)


def test_a_filter_that_makes_no_sense_is_refused_with_what_was_expected() -> None:
    made = after(view(), "/", *"to:nowhere", "enter")
    assert made.typing == "to:nowhere"
    assert made.refused.startswith("to: expected an address or network, ")
    assert after(made, "backspace").refused == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lte", {"uplink": "lte"}),
        ("other", {"uplink": "other"}),
        ("udp :53", {"proto": "udp", "port": "53"}),
        ("192.168.1.0/24", {"client": "192.168.1.0/24"}),
        ("2001:db8::7", {"find": "2001:db8::7"}),
        ("443", {"find": "443"}),
        ("to:203.0.113.7", {"to": "203.0.113.7"}),
        ("  ", {}),
    ],
)
def test_words_of_a_filter_need_no_names(text: str, words: dict[str, str]) -> None:
    assert filter_words(text, ["fibre", "lte"]) == words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (":70000", "port: expected a number"),
        ("to:x", "to: expected an address or network"),
        ("1.2.3/4", "client: expected an address or network"),
        ("tcp udp", "udp: only one word can say the protocol"),
        ("lte fibre", "fibre: only one word can say the uplink"),
        ("one two", "two: only one word can say what is looked for"),
    ],
)
def test_words_that_contradict_or_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        filter_words(text, ["fibre", "lte"])


def test_why_is_asked_with_all_that_is_known_of_a_connection() -> None:
    assert why_words(flow(1)) == {
        "from": "192.168.15.1", "to": "198.18.0.10:443", "protocol": "6", "source_port": "50001",
    }  # fmt: skip
    ping = flow(1, family=6, protocol=58, client="fd00::1", client_port=None, destination="2001:db8::1", port=None)
    assert why_words(ping) == {"from": "fd00::1", "to": "[2001:db8::1]", "protocol": "58"}


@pytest.mark.parametrize(
    ("uplink", "said"),
    [
        ("fibre", "this connection uses fibre; "),
        ("other", "polywan gave this connection no uplink; "),
        ("probe", "this connection is a probe of polywan; "),
    ],
)
def test_an_answer_about_new_connections_is_told_from_what_the_selected_one_does(uplink: str, said: str) -> None:
    first, *rest = why_lines(flow(1, uplink=uplink), ["leaves by lte"])
    assert first.startswith(said)
    assert rest == ["leaves by lte"]


def test_ctrl_l_draws_anew() -> None:
    assert press(view(), "redraw")[1] == Redraw()


def test_the_help_tells_of_every_letter_that_does_something() -> None:
    listed_keys = " ".join(keys for keys, _ in HELP)
    for key in "jkwces/upq":
        assert key in listed_keys


@given(st.lists(st.sampled_from(KEYS), max_size=30), st.booleans())
def test_any_keys_leave_a_view_that_can_be_used(keys: list[str], empty: bool) -> None:
    made = after(view(status()) if empty else view(), *keys)
    rows = made.flows.rows if made.flows else ()
    assert 0 <= made.flow <= max(0, len(rows) - 1)
    assert made.focus in ("uplinks", made.below)
