"""The lower sections of the page in a browser: what they show of a running daemon, and what they have it do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Locator, Page, Route, expect

from polywan.api.views.flow_rows import FlowRow
from support.browsing import DESK, PHONE, House, Visit, screenshot, streaming
from support.documents import status, uplink
from support.web import token as token_of

Opens = Callable[..., Visit]

CLIENT, SERVER = "192.168.15.10", "203.0.113.10"
HOSTILE = '<img src="x" onerror="document.title=1">'
SECTIONS = ("connections", "why", "events", "clients", "plan")
COLUMNS = FlowRow._fields
MANY = 60_000
SCRIPTING_MS = 100


@pytest.fixture(scope="module")
def token(house: House) -> str:
    """A token with which the page may act."""
    return token_of(house.daemon.runtime, "act", "act").removeprefix("Bearer ")


def section(page: Page, name: str) -> Locator:
    """Return a section once it is on the screen: before that it asks for nothing."""
    found = page.locator(f"#{name}")
    found.scroll_into_view_if_needed()
    return found


def flow(number: int, *, down: int = 1000, name: str = "isp1") -> list[Any]:
    known = {"family": 4, "protocol": 6, "client": f"192.168.15.{number % 200 + 2}", "client_port": 40_000 + number}
    known |= {"destination": SERVER, "port": 443, "state": "ESTABLISHED", "age": 1.0, "bytes_up": 10, "fast": 0}
    return [{**known, "bytes_down": down, "uplink": name}.get(column) for column in COLUMNS]


def flows(rows: list[list[Any]], total: int | None = None) -> dict[str, Any]:
    return {
        "schema": 1,
        "columns": COLUMNS,
        "flows": rows,
        "totals": [],
        "total": len(rows) if total is None else total,
    }


def answers(page: Page, path: str, answer: Callable[[], object]) -> list[str]:
    """Answer a call in the daemon's place; return the addresses that were asked for, as they come."""
    asked: list[str] = []

    def fulfil(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json=answer())

    page.route(re.compile(rf"/api/v1/{path}(\?|$)"), fulfil)
    return asked


def scripting(page: Page) -> Callable[[], float]:
    """Return what tells the milliseconds that the page's scripts, styles and layout have taken up to then."""
    browser = page.context.new_cdp_session(page)
    browser.send("Performance.enable")

    def taken() -> float:
        metrics = {each["name"]: each["value"] for each in browser.send("Performance.getMetrics")["metrics"]}
        return 1000 * float(metrics["ScriptDuration"] + metrics["LayoutDuration"] + metrics["RecalcStyleDuration"])

    return taken


# Connections


def test_connections_are_found_by_text_and_uplink(house: House, visit: Opens) -> None:
    page = visit().page
    found = section(page, "connections")
    expect(found.locator("tbody tr").first).to_be_visible()
    found.get_by_label("Find").fill(CLIENT)
    expect(found.locator("tbody tr").first).to_contain_text(CLIENT)
    found.get_by_label("Uplink").select_option("isp2")
    expect(found.locator("tbody tr", has_text="isp1")).to_have_count(0)
    assert set(found.locator("tbody td.s-uplink").all_inner_texts()) == {"isp2"}
    found.get_by_label("Find").fill("no such thing")
    expect(found).to_contain_text("No connection matches")


def test_connections_are_sorted_by_the_daemon(house: House, visit: Opens) -> None:
    page = visit(go=False).page
    asked = answers(page, "flows", lambda: flows([flow(n) for n in range(25)], total=80))
    page.goto(house.url)
    found = section(page, "connections")
    expect(found.locator("tbody tr")).to_have_count(25)
    assert "sort=bytes" in asked[-1]
    found.get_by_role("button", name="Age").click()
    expect(found.get_by_role("columnheader", name="Age")).to_have_attribute("aria-sort", "descending")
    assert "sort=age" in asked[-1]
    assert "offset=0" in asked[-1]
    found.get_by_role("button", name="Next").click()
    expect(found).to_contain_text("26\N{EN DASH}50 of 80")
    assert "offset=25" in asked[-1]


def test_rows_keep_their_places_while_somebody_points_at_them(house: House, visit: Opens) -> None:
    page = visit(go=False).page
    rows = [flow(1, down=5_000_000), flow(2, down=3_000_000)]
    answers(page, "flows", lambda: flows(sorted(rows, key=lambda row: -row[COLUMNS.index("bytes_down")])))
    page.goto(house.url)
    body = section(page, "connections").locator("tbody tr")
    expect(body.first).to_contain_text("192.168.15.3:")
    body.first.hover()
    rows[:] = [flow(3, down=9_000_000), flow(2, down=7_000_000)]
    expect(body.nth(1)).to_contain_text("7 MB", timeout=8000)
    expect(body.nth(0)).to_contain_text("192.168.15.3:")
    expect(body.nth(0)).to_contain_text("ended")
    page.mouse.move(0, 0)
    expect(body.nth(0)).to_contain_text("192.168.15.5:", timeout=8000)


@pytest.mark.alone
def test_60_000_connections_stay_smooth(house: House, visit: Opens) -> None:
    page = visit(go=False).page
    # What is drawn anew every second is measured elsewhere.
    page.add_init_script(streaming(status(uplink("isp1"))))
    answers(page, "flows", lambda: flows([flow(n, down=time.monotonic_ns() % 10**9) for n in range(25)], total=MANY))
    page.goto(house.url)
    found = section(page, "connections")
    expect(found).to_contain_text("1\N{EN DASH}25 of 60,000")
    page.wait_for_timeout(1500)
    acts: list[Callable[[], None]] = [
        lambda: found.get_by_role("button", name="Age").click(),
        lambda: found.get_by_role("button", name="Next").click(),
        lambda: page.mouse.wheel(0, 300),
    ]
    taken = scripting(page)
    for act in acts:
        before = taken()
        act()
        page.wait_for_timeout(250)
        assert taken() - before < SCRIPTING_MS


# Why


def test_a_connection_opens_its_explanation(house: House, visit: Opens) -> None:
    page = visit().page
    found = section(page, "connections")
    found.get_by_label("Find").fill(CLIENT)
    row = found.locator("tbody tr", has_text=f"{CLIENT}:").first
    expect(row).to_be_visible()
    row.get_by_role("link").click()
    why = page.locator("#why")
    expect(why.get_by_role("heading", level=3)).to_be_focused()
    expect(why.locator(".s-uplink")).not_to_have_count(0)
    expect(why.get_by_label("Source", exact=True)).to_have_value(CLIENT)


def test_an_explanation_goes_from_rule_to_kernel(house: House, visit: Opens) -> None:
    rules = '\n[[rules]]\nto = "198.51.100.0/24"\nuplink = "isp3"\n'
    rules += '\n[[rules]]\nprotocol = "tcp"\nport = 443\nuplink = "isp2"\n'
    before = house.daemon.config.read_text("utf-8")
    house.daemon.config.write_text(before + rules, "utf-8")
    house.daemon.reload()
    try:
        page = visit().page
        why = section(page, "why")
        why.get_by_label("Source", exact=True).fill(CLIENT)
        why.get_by_label("Destination").fill(f"{SERVER}:443")
        page.keyboard.press("Enter")
        steps = why.locator(".s-step")
        expect(steps.first).to_contain_text("arrives by lan0")
        expect(steps.nth(1)).to_contain_text(re.compile(r"Rule 1.*polywan\.toml:\d+.*does not match", re.DOTALL))
        expect(steps.nth(2)).to_contain_text(re.compile(r"Rule 2.*polywan\.toml:\d+.*matches", re.DOTALL))
        expect(why.locator(".s-step.s-uplink")).to_contain_text(re.compile(r"isp2.*table.*server sees", re.DOTALL))
        expect(steps.last).to_contain_text("The kernel agrees")
        why.get_by_text("The same as text").click()
        expect(why.locator("pre")).to_contain_text("leaves by isp2")
        why.evaluate("(it) => it.scrollIntoView()")
        screenshot(page, "why")
    finally:
        house.daemon.config.write_text(before, "utf-8")
        house.daemon.reload()


def test_a_question_can_be_sent_to_somebody_else(house: House, visit: Opens) -> None:
    page = visit().page
    why = section(page, "why")
    why.get_by_label("Destination").fill(f"{SERVER}:80")
    why.get_by_role("button", name="Explain").click()
    expect(why.locator(".s-answer")).to_contain_text("from this box itself")
    address = page.url
    assert "#why?" in address
    other = visit(path=address.removeprefix(house.url)).page
    expect(other.locator("#why .s-answer")).to_contain_text("from this box itself")
    expect(other.locator("#why").get_by_label("Destination")).to_have_value(f"{SERVER}:80")


def test_a_question_without_sense_is_answered_with_the_reason(house: House, visit: Opens) -> None:
    tab = visit()
    why = section(tab.page, "why")
    why.get_by_label("Destination").fill("nowhere")
    why.get_by_role("button", name="Explain").click()
    expect(why.get_by_role("alert")).to_contain_text("expected an IP address, got 'nowhere'")
    tab.complaints.clear()  # the browser notes every answer that is a refusal


# Events


def test_what_happens_joins_the_events_at_once(house: House, visit: Opens) -> None:
    page = visit().page
    events = section(page, "events")
    expect(events.locator("li").first).to_be_visible()
    house.lab.cut(2)
    expect(events.locator("li").first).to_contain_text("isp2: up → down", timeout=3000)
    expect(events.locator("li time").first).to_have_attribute("title", re.compile(r"20\d\d"))
    house.lab.restore(2)
    expect(events.locator("li").first).to_contain_text("isp2: down → up", timeout=20_000)
    events.scroll_into_view_if_needed()
    events.get_by_label("Uplink").select_option("isp1")
    # The reason of another uplink's entry may name it.
    expect(events.locator("li strong", has_text="isp2: ")).to_have_count(0)
    events.get_by_label("Show").select_option("1h")
    expect(events.locator("li").last).to_contain_text("isp1: found up")


# Clients


def test_clients_are_listed_with_what_they_moved_by_which_uplink(house: House, visit: Opens) -> None:
    page = visit().page
    clients = section(page, "clients")
    row = clients.get_by_role("row", name=re.compile(re.escape(CLIENT)))
    expect(row).to_contain_text(re.compile(r"↓ [\d.]+ (kB|MB|GB)"))
    expect(row.get_by_role("img")).to_have_attribute("aria-label", re.compile(r"isp\d \d"))


def test_the_month_of_a_client_is_shown(house: House, visit: Opens) -> None:
    page = visit(go=False).page
    month = {"month": "2026-11", "rx_bytes": 3 * 10**9, "tx_bytes": 10**9}
    volumes = {"schema": 1, "problem": "", "uplinks": [{**month, "uplink": "isp1", "probe_bytes": 0}]}
    answers(page, "volumes", lambda: {**volumes, "clients": [{**month, "client": CLIENT}]})
    page.goto(house.url)
    clients = section(page, "clients")
    clients.get_by_role("button", name="This month").click()
    expect(clients.get_by_role("heading", level=3)).to_have_text("November 2026")
    expect(clients.get_by_role("row", name=re.compile(re.escape(CLIENT)))).to_contain_text("↓ 3 GB")


# Plan


@pytest.fixture
def file_of(house: House) -> Iterator[Callable[[str, str], None]]:
    """Changes the daemon's file, and puts it back."""
    before = house.daemon.config.read_text("utf-8")

    def change(old: str, new: str) -> None:
        house.daemon.config.write_text(before.replace(old, new, 1), "utf-8")

    yield change
    house.daemon.config.write_text(before, "utf-8")


def test_a_changed_file_is_shown_beside_its_plan(
    house: House, visit: Opens, file_of: Callable[[str, str], None]
) -> None:
    page = visit().page
    plan = section(page, "plan")
    expect(plan).to_contain_text("The files on disk are what is in force")
    file_of("weight = 3", "weight = 5")
    page.reload()
    plan = section(page, "plan")
    expect(plan.locator(".s-diff .s-in")).to_have_text(re.compile(r"\+ weight = 5"))
    expect(plan.locator(".s-diff .s-out")).to_have_text(re.compile(r"- weight = 3"))
    expect(plan.get_by_role("heading", name=re.compile(r"\d+ operations?"))).to_be_visible()
    plan.evaluate("(it) => it.scrollIntoView()")
    screenshot(page, "plan")
    file_of("weight = 3", "weight = 0")
    page.reload()
    expect(section(page, "plan").locator(".s-problems")).to_contain_text(
        re.compile(r"polywan\.toml:\d+.*weight", re.DOTALL)
    )


def test_a_text_is_planned_and_its_problems_lead_to_their_lines(house: House, visit: Opens, token: str) -> None:
    tab = visit(path=f"/#token={token}")
    page, before = tab.page, house.daemon.config.read_text("utf-8")
    plan = section(page, "plan")
    text = plan.get_by_role("textbox", name=re.compile("Text of"))
    text.fill(before.replace("weight = 3", "weight = 4"))
    page.keyboard.press("Control+Enter")
    expect(plan.get_by_role("heading", name=re.compile(r"\d+ operations?"))).to_be_visible()
    text.fill(before.replace("weight = 3", "weight = 0"))
    plan.get_by_role("button", name="Plan", exact=True).click()
    plan.get_by_role("button", name=re.compile(r"polywan\.toml:\d+")).click()
    expect(text).to_be_focused()
    selected = "(it) => it.value.slice(it.selectionStart, it.selectionEnd)"
    page.wait_for_function("() => document.activeElement.selectionEnd > document.activeElement.selectionStart")
    assert text.evaluate(selected) == "weight = 0"
    expect(plan).to_contain_text("sudo polywan try FILE")
    assert house.daemon.config.read_text("utf-8") == before
    tab.complaints.clear()  # the browser notes every answer that is a refusal


# Orders


def state_of(house: House, number: int) -> str:
    return house.daemon.uplink(number).state


def test_an_order_is_shown_before_it_is_given_and_is_taken_back(house: House, visit: Opens, token: str) -> None:
    page = visit(path=f"/#token={token}").page
    assert token not in page.url
    page.get_by_role("button", name="Disable isp3").click()
    dialog = page.get_by_role("dialog", name="Disable isp3")
    expect(dialog.get_by_role("row", name="isp3")).to_contain_text(re.compile(r"17 %.*0 %", re.DOTALL))
    expect(dialog).to_contain_text("ended at once")
    assert state_of(house, 3) == "up"
    screenshot(page, "order")
    dialog.get_by_role("button", name="Disable isp3").click()
    result = page.locator(".s-result")
    expect(result).to_contain_text("isp3 is now: disabled.")
    expect(result).to_be_focused()
    assert state_of(house, 3) == "disabled"
    screenshot(page, "order-given")
    result.get_by_role("button", name="Undo").click()
    expect(result).to_contain_text("Taken back.")
    expect(page.get_by_role("button", name="Disable isp3")).to_be_visible(timeout=20_000)
    assert state_of(house, 3) != "disabled"


def test_an_uplink_is_drained_until_a_deadline_and_enabled_again(house: House, visit: Opens, token: str) -> None:
    page = visit(path=f"/#token={token}").page
    page.get_by_role("button", name="Drain isp2").click()
    dialog = page.get_by_role("dialog", name="Drain isp2")
    dialog.get_by_label("Deadline").select_option("1h")
    dialog.get_by_role("button", name="Drain isp2").click()
    expect(page.locator(".s-result")).to_contain_text("isp2 is now: drain")
    drained = house.daemon.uplink(2).drain
    assert drained is None or drained.by_operator
    page.get_by_role("button", name="Enable isp2").click()
    page.get_by_role("dialog").get_by_role("button", name="Enable isp2").click()
    expect(page.get_by_role("button", name="Drain isp2")).to_be_visible(timeout=20_000)
    assert state_of(house, 2) in ("up", "degraded")


def test_a_test_says_what_every_layer_does(house: House, visit: Opens, token: str) -> None:
    page = visit(path=f"/#token={token}").page
    page.get_by_role("button", name="Test isp1").click()
    page.get_by_role("dialog").get_by_role("button", name="Test isp1").click()
    result = page.locator(".s-result")
    expect(result).to_contain_text("isp1 works.", timeout=15_000)
    expect(result.locator("dt").first).to_contain_text("works")
    result.get_by_role("button", name="Close").click()
    expect(result).to_have_count(0)


def test_whoever_may_not_act_reads_how_to_get_a_token_and_enters_it(house: House, visit: Opens, token: str) -> None:
    tab = visit()
    page = tab.page
    page.get_by_role("button", name="Disable isp3").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("sudo polywan web token add NAME --scope act")
    expect(dialog.get_by_role("button", name="Disable isp3")).to_have_count(0)
    dialog.get_by_label("Token").fill("x" * 43)
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("not known, was revoked or has expired")
    dialog.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Disable isp3")).to_be_enabled()
    assert state_of(house, 3) != "disabled"
    tab.complaints.clear()  # the browser notes every answer that is a refusal


def test_a_dialog_is_left_by_escape_and_gives_the_focus_back(house: House, visit: Opens) -> None:
    page = visit().page
    button = page.get_by_role("button", name="Drain isp1")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    inside = "() => document.querySelector('dialog[open]').contains(document.activeElement)"
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate(f"{inside} || document.activeElement === document.body")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()


# All of them


def test_the_report_is_copied_without_what_is_hidden(house: House, visit: Opens) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"]).page
    button = page.get_by_role("button", name="Copy report")
    button.click()
    expect(page.locator(".s-report")).to_contain_text("Copied")
    text = page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"isp1: up .*\n  wan1 · 100\.64\.1\.2 ", text)
    assert re.search(r"policy default \(weighted\): isp1 \d+ %, isp2 \d+ %", text)
    page.keyboard.press("h")
    button.click()
    page.wait_for_timeout(200)
    text = page.evaluate("navigator.clipboard.readText()")
    assert re.findall(r"100\.64\.|203\.0\.113\.|2001:db8", text) == []


def test_sections_show_names_from_outside_and_never_obey_them(house: House, visit: Opens) -> None:
    page = visit(go=False).page
    page.add_init_script(streaming(status(uplink(HOSTILE), uplink("other"))))
    answers(page, "flows", lambda: flows([flow(1, name=HOSTILE)]))
    entry = {"id": 1, "time": "2026-11-30T12:00:00Z", "uplink": HOSTILE, "event": "state", "state": HOSTILE}
    entry |= dict.fromkeys(("previous_state", "reason"), HOSTILE) | dict.fromkeys(("lasted_s", "rx_bytes", "tx_bytes"))
    answers(page, "events", lambda: {"schema": 1, "events": [entry], "last": 1, "more": False, "problem": HOSTILE})
    client = {"client": HOSTILE, "connections": 1, "bytes_up": 1, "bytes_down": 1, "uplinks": {HOSTILE: 1}}
    answers(page, "clients", lambda: {"schema": 1, "clients": [client], "total": 1})
    problem = {"where": HOSTILE, "key": HOSTILE, "message": HOSTILE, "hint": HOSTILE}
    pending = {
        "schema": 1,
        "differs": True,
        "files": [HOSTILE],
        "in_force": {HOSTILE: ""},
        "on_disk": {HOSTILE: HOSTILE},
    }
    answers(
        page, "pending", lambda: {**pending, "problems": [problem], "changes": [], "operations": [], "warnings": []}
    )
    page.goto(house.url)
    for name in ("connections", "events", "clients", "plan"):
        expect(section(page, name)).to_contain_text(HOSTILE)
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0
    expect(page).not_to_have_title("1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_sections_fit_and_leave_no_reader_out(house: House, visit: Opens, scheme: str, size: tuple[int, int]) -> None:
    page = visit(size, color_scheme=scheme, path=f"/#why?from={CLIENT}&to={SERVER}:443&protocol=tcp").page
    expect(page.locator("#why .s-answer")).to_be_visible()
    for name in SECTIONS:
        expect(section(page, name).locator("table, ol, textarea").first).to_be_visible()
        page.wait_for_timeout(300)
        page.locator(f"#{name}").evaluate("(it) => it.scrollIntoView()")
        screenshot(page, f"{name}-{'desk' if size == DESK else 'phone'}-{scheme}")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    found = Axe().run(page, context={"include": [[f"#{name}"] for name in SECTIONS]}).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("code", ["pl", "zh"])
def test_sections_are_whole_in_every_language(house: House, visit: Opens, code: str) -> None:
    page = visit().page
    page.get_by_role("combobox", name="Language").select_option(code)
    expect(page.locator("html")).to_have_attribute("lang", code)
    for name in SECTIONS:
        section(page, name)
        page.wait_for_timeout(200)
    text = page.locator("main").inner_text()
    assert re.findall(r"\b(?:connections|why|events|clients|plan|actions|token|report|sections)\.\w+", text) == []


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        ("", "", []),
        ("a\nb\n", "a\nc\n", [[" ", "a"], ["-", "b"], ["+", "c"]]),
        ("a\nb\nc\n", "b\nc\nd\n", [["-", "a"], [" ", "b"], [" ", "c"], ["+", "d"]]),
        ("x\n", "", [["-", "x"]]),
    ],
)
def test_texts_are_compared_line_by_line(visit: Opens, before: str, after: str, rows: list[list[str]]) -> None:
    compared = f"import('/static/diff.js').then((it) => it.compared({json.dumps(before)}, {json.dumps(after)}))"
    assert visit().page.evaluate(compared) == rows
