"""Charts and availability in a browser, with measurements that a new lab has not gathered yet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from polywan.api.codec import encode
from polywan.api.document import Document
from polywan.api.views.measurements import Availability, Beat, Incident, Incidents, Measurements, Series
from support.browsing import DESK, PHONE, House, Visit, screenshot, streaming
from support.documents import status, uplink

Opens = Callable[..., Visit]

COLUMNS = ("time", "rx_bps", "tx_bps", "rtt_ms", "loss")
HALF_HOUR = 1800
NAMES = ("fibre", "dsl")


def measured(span: int, step: int, gap: tuple[float, float]) -> Measurements:
    """Return a steady fibre, and a line that nobody measured in a part of the time (both 0..1)."""
    now = time.time()
    times = range(int(now - span) // step * step, int(now), step)
    known = {t: not gap[0] <= (t - now + span) / span < gap[1] for t in times}
    return Measurements(
        schema=1,
        step_s=step,
        series=(
            Series(uplink="fibre", columns=COLUMNS, points=tuple((t, 8e6, 1e6, 9.0, 0.0) for t in times)),
            Series(uplink="dsl", columns=COLUMNS, points=tuple((t, 2e6, 2e5, 20.0, 0.01) for t in times if known[t])),
        ),
        problem="",
    )


def lives(count: int, seconds: int) -> Availability:
    """Return lives with half an interval of outage in the second last one, and nothing known of the first."""
    begin = time.time() // seconds * seconds - (count - 1) * seconds

    def beat(n: int) -> Beat:
        start = datetime.fromtimestamp(begin + n * seconds, UTC).isoformat()
        down = seconds / 2 if n == count - 2 else 0.0
        up = 0.0 if n == 0 else seconds - down
        return Beat(
            start=start,
            seconds=seconds,
            up=up,
            degraded=0.0,
            down=down,
            off=0.0,
            reasons=("no carrier",) if down else (),
        )

    return Availability(schema=1, uplinks=dict.fromkeys(NAMES, tuple(map(beat, range(count)))))


def incident(**more: Any) -> Incident:
    known: dict[str, Any] = {
        "id": 7,
        "uplink": "dsl",
        "state": "down",
        "since": "2026-11-30T12:00:00+00:00",
        "until": "2026-11-30T12:15:00+00:00",
        "seconds": 900.0,
        "reason": "no carrier",
        "evidence": ("target 1.1.1.1: no answer to the last 3 probes",),
    }
    return Incident(**known | more)


def answering(document: Document | Callable[[dict[str, str]], Document]) -> Callable[[Route], None]:
    def answer(route: Route) -> None:
        words = {key: values[0] for key, values in parse_qs(urlsplit(route.request.url).query).items()}
        found = document(words) if callable(document) else document
        route.fulfill(body=json.dumps(encode(found)), content_type="application/json")

    return answer


def past_span(words: dict[str, str]) -> Measurements:
    span = round(time.time() - datetime.fromisoformat(words["since"]).timestamp())
    return measured(span, max(1, span // 600), (0.4, 0.6))


@pytest.fixture
def opened(house: House, visit: Opens) -> Callable[..., Page]:
    """Opens the page with measurements; `size` and options as `visit`."""

    def at(size: tuple[int, int] = DESK, **options: Any) -> Page:
        page = visit(size, go=False, **options).page
        lines = (uplink(name, share=0.5, rx_bps=8_000_000, tx_bps=1_000_000) for name in NAMES)
        page.add_init_script(streaming(status(*lines)))
        page.route("**/api/v1/measurements*", answering(past_span))
        page.route(
            "**/api/v1/availability*",
            answering(lambda words: lives(30, 86400) if words["span"] == "30d" else lives(48, HALF_HOUR)),
        )
        page.route("**/api/v1/incidents*", answering(Incidents(schema=1, incidents=(incident(),), more=False)))
        page.goto(house.url)
        page.wait_for_selector(".topology .node")
        page.wait_for_selector(".beat")
        return page

    return at


def legend_at(page: Page, part: float) -> list[str]:
    """Return the rows of the legend with the cursor over that part of the time shown, 0..1."""
    plot = page.locator(".plot .u-over").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + part * box["width"], box["y"] + 20)
    page.wait_for_timeout(150)
    return page.locator(".legend tbody tr").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_what_was_measured_can_be_read_at_every_moment(
    opened: Callable[..., Page], scheme: str, size: tuple[int, int]
) -> None:
    page = opened(size, color_scheme=scheme)
    fibre, dsl = legend_at(page, 0.2)
    assert "8 Mbit/s" in fibre
    assert "20 ms" in dsl
    screenshot(page, f"{'desk' if size == DESK else 'phone'}-over-time-{scheme}", whole=True)


def test_what_nobody_measured_is_a_gap_and_not_a_zero(opened: Callable[..., Page]) -> None:
    page = opened()
    fibre, dsl = legend_at(page, 0.5)
    assert "8 Mbit/s" in fibre
    assert dsl.split() == ["dsl", *4 * "\N{EN DASH}"]


def test_one_cursor_is_in_all_charts(opened: Callable[..., Page]) -> None:
    page = opened()
    legend_at(page, 0.3)
    places = page.evaluate("() => [...document.querySelectorAll('.u-cursor-x')].map((it) => it.style.transform)")
    assert len(places) == 3
    assert len(set(places)) == 1


@pytest.mark.parametrize(("name", "seconds"), [("1 h", 3600), ("24 h", 86400), ("30 d", 30 * 86400)])
def test_other_times_are_asked_for_and_shown(opened: Callable[..., Page], name: str, seconds: int) -> None:
    page = opened()
    with page.expect_request("**/api/v1/measurements*") as asked:
        page.locator("#charts").get_by_role("button", name=name).click()
    since = datetime.fromisoformat(parse_qs(urlsplit(asked.value.url).query)["since"][0])
    assert abs(time.time() - since.timestamp() - seconds) < 30
    page.wait_for_timeout(300)
    assert "8 Mbit/s" in legend_at(page, 0.2)[0]


def test_a_beat_says_what_happened_and_opens_its_incidents_by_the_keyboard(opened: Callable[..., Page]) -> None:
    page = opened()
    row = page.locator(".life .row").nth(1)
    assert row.locator(".beat").count() == 48
    row.locator(".beat[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    beat = row.locator(".beat:focus")
    assert "down for 15 min\nno carrier" in (beat.get_attribute("aria-label") or "")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("target 1.1.1.1: no answer to the last 3 probes")
    screenshot(page, "incident")
    page.keyboard.press("Escape")
    expect(beat).to_be_focused()


def test_an_unknown_time_counts_for_nothing_in_the_availability(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.locator(".life .row").first.locator(".beat").first.get_attribute("class") == "beat unknown"
    # 46.5 of the 47 intervals of which something is known.
    expect(page.locator(".life .num").first).to_have_text("98.94 %")


def test_the_days_of_a_month_are_shown_as_well(opened: Callable[..., Page]) -> None:
    page = opened()
    page.locator("#beats").get_by_role("button", name="30 d").click()
    expect(page.locator(".life .row").first.locator(".beat")).to_have_count(30)
