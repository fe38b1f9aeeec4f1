"""Functions of the page's modules, called in the browser by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page

from support.browsing import House, Visit

Opens = Callable[..., Visit]

HIDDEN = "•.•.•.•"
HIDE = "async (text) => (await import('/static/i18n.js')).hideAddresses(text)"
SAY = """async ([language, n]) => {
  const {loadCatalogue, translator} = await import('/static/i18n.js');
  return translator(language, await loadCatalogue(language))('overall.partly.text', {n, of: 9});
}"""
WRITE = """async ([what, value]) => {
  const {formats, loadCatalogue, translator} = await import('/static/i18n.js');
  const t = translator('en', await loadCatalogue('en'));
  return formats('en', t, {state: {private: false}})[what](value);
}"""
DRAW = """async ([text]) => {
  const {html, render} = await import('/static/ui.js');
  const place = document.createElement('div');
  const inside = html`<b ...${{id: text}}/>`;
  render(html`<p class="a ${text} b" title=${text}>1 ${text} <!-- ${text} -->${inside}${[text]}</p>`, place);
  const [p] = place.children;
  return [place.children.length, p.className, p.title, p.textContent, p.children.length, p.children[0].id];
}"""
MERGE = """async ([first, change]) => {
  const {createStore} = await import('/static/store.js');
  const store = createStore();
  store.take('snapshot', first);
  store.take('change', change);
  return store.state.status;
}"""

STATE = "async (uplink) => (await import('/static/states.js')).stateOf(uplink)"


@pytest.fixture
def page(visit: Opens) -> Page:
    return visit().page


def test_addresses_of_others_are_hidden_and_those_at_home_are_not(house: House, page: Page) -> None:
    said = {
        "from 203.0.113.7:443 to 192.168.1.2": f"from {HIDDEN}:443 to 192.168.1.2",
        "[2001:db8::1]:443, fe80::1 and fd00::1": "[•:•:•]:443, fe80::1 and fd00::1",
        "2001:db8:1:2:3:4:5:6/64": "•:•:•/64",
        "02:00:5e:00:53:01 at 12:34:56": "02:00:5e:00:53:01 at 12:34:56",
        "polywan 1.2.3": "polywan 1.2.3",
        "172.16.0.1, 172.32.0.1": f"172.16.0.1, {HIDDEN}",
    }
    assert {text: page.evaluate(HIDE, text) for text in said} == said


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("en", {1: "One of 9 uplinks does not work", 2: "2 of 9 uplinks do not work"}),
        ("pl", {1: "Jedno z 9 łączy nie działa", 2: "2 z 9 łączy nie działają", 5: "5 z 9 łączy nie działa"}),
    ],
)
def test_a_number_chooses_the_form_of_its_sentence(
    house: House, page: Page, language: str, forms: dict[int, str]
) -> None:
    assert {n: page.evaluate(SAY, [language, n]) for n in forms} == forms


@pytest.mark.parametrize(
    ("what", "value", "text"),
    [
        ("bits", 999_600, "1 Mbit/s"),
        ("bits", 12_345, "12.3 kbit/s"),
        ("bytes", None, "\N{EN DASH}"),
        ("percent", 0.99999, "> 99.9 %"),
        ("percent", 0.0001, "< 0.1 %"),
        ("percent", 1, "100 %"),
        ("span", 252, "4 min 12 s"),
        ("span", 90_000, "1 d 1 h"),
        ("span", 3_600, "1 h"),
        ("ms", 3.456, "3.5 ms"),
    ],
)
def test_a_measurement_is_written_as_people_read_it(house: House, page: Page, what: str, value: Any, text: str) -> None:
    assert page.evaluate(WRITE, [what, value]) == text


def test_values_of_a_template_are_text_whatever_they_say(house: House, page: Page) -> None:
    bad = '"><img src=x>'
    assert page.evaluate(DRAW, [bad]) == [1, f"a {bad} b", bad, f"1 {bad} {bad}", 1, bad]


def test_a_change_replaces_adds_and_removes_uplinks(house: House, page: Page) -> None:
    old = [{"name": name, "state": "up"} for name in ("a", "b", "c")]
    news = [{"name": "b", "state": "down"}, {"name": "d", "state": "up"}]
    first = {"uplinks": old, "policies": [1], "generation": 1}
    change = {"time": "", "uplinks": news, "removed": ["c"], "policies": None, "generation": 2}
    merged = {"uplinks": [old[0], *news], "policies": [1], "generation": 2}
    assert page.evaluate(MERGE, [first, change]) == merged


def test_an_uplink_that_its_quota_blocks_is_neither_up_nor_standing_by(house: House, page: Page) -> None:
    for state, action, word in (("up", "block", "blocked"), ("up", "less", "up"), ("down", "block", "down")):
        uplink = {"state": state, "standby": False, "reason": "", "quota": {"action": action}}
        assert page.evaluate(STATE, uplink) == word
    assert page.evaluate(STATE, {"state": "up", "standby": True, "reason": "", "quota": None}) == "standby"
