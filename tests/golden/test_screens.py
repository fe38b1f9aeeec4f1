"""Screens of `polywan top`, as a file each; ``pytest tests/golden --update-golden`` writes them anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from polywan.api.codec import decode
from polywan.api.views.quota import QuotaStatus
from polywan.top.display import Display
from polywan.top.handling import press
from polywan.top.view import FlowsRead, Lost, News, Pane, View, hear
from support.documents import family, status, uplink
from support.screens import entry, flow, many, text, view

GOLDEN = Path(__file__).parent / "screens"
CHINESE = "运营商的网关没有回答六次探测都没有回音, 线路可能已经断开, 请检查光猫"
HOSTILE = "$(id)\x1b[2J\x07\n<b>[red]'\";\u202e"


def heard(made: View, *news: News) -> View:
    for one in news:
        made = hear(made, one, datetime.now(UTC))
    return made


def after(made: View, *keys: str) -> View:
    for key in keys:
        made, _ = press(made, key)
    return made


def stale() -> View:
    before = view(now=datetime.now(UTC) - timedelta(seconds=75))
    return heard(before, Lost(problem="no daemon answers at /run/polywan/control.sock: connection refused"))


def hostile() -> View:
    bad = {"ipv4": family("down", HOSTILE), "ipv6": family("down", HOSTILE)}
    document = status(uplink(HOSTILE, "down", families=bad, interface=HOSTILE), warnings=(HOSTILE * 3,))
    made = heard(view(document), FlowsRead(rows=(flow(1, uplink=HOSTILE, state=HOSTILE),), total=1))
    return heard(made, entry(2, uplink=HOSTILE, reason=HOSTILE))


def chinese() -> View:
    bad = {"ipv4": family("down", CHINESE), "ipv6": family("down", CHINESE)}
    return view(status(uplink("电信", "down", families=bad), uplink("联通", share=1.0)))


def quotas() -> View:
    known = {**dict.fromkeys(QuotaStatus.__fields__), "kind": "monthly", "state": "soft", "action": "less", "text": ""}
    amounts = {"used_bytes": 82_000_000_000, "hard_bytes": 100_000_000_000, "since": "2026-11-01T00:00:00+00:00"}
    soft = decode(QuotaStatus, {**known, **amounts})
    return view(status(uplink("fibre", share=1.0), uplink("lte", quota=soft)))


ADDRESS = flow(1, client="192.168.15.7", destination="93.184.216.34", reply_source="93.184.216.34")
PRIVATE = Display(private=True)

SCREENS: dict[str, tuple[Callable[[], View], int, int]] = {
    "three uplinks": (view, 80, 24),
    "wide": (view, 120, 40),
    "narrow": (view, 40, 15),
    "tiny": (view, 30, 6),
    "first picture": (lambda: view(minute=False, flows=None, entries=()), 80, 24),
    "53 uplinks": (lambda: view(many()), 80, 24),
    "53 uplinks, the cursor at the end": (lambda: after(view(many()), "end"), 80, 24),
    "53 uplinks, the worst first, nothing below": (lambda: after(view(many()), "c", "c", "c", "s"), 120, 40),
    "no uplinks": (lambda: view(status()), 80, 24),
    "stale": (stale, 80, 24),
    "hostile names": (hostile, 80, 24),
    "wide characters": (chinese, 80, 24),
    "ASCII": (lambda: view(display=Display(utf8=False)), 80, 24),
    "ASCII for wide characters": (lambda: replace(chinese(), display=Display(utf8=False)), 80, 24),
    "bytes": (lambda: after(view(), "u"), 80, 24),
    "hidden addresses": (lambda: heard(view(display=PRIVATE), FlowsRead(rows=(ADDRESS,), total=1)), 80, 24),
    "events": (lambda: after(heard(view(), entry(2, state="up", previous_state="down")), "e"), 80, 24),
    "help": (lambda: after(view(), "h"), 80, 24),
    "details": (lambda: after(view(), "down", "enter"), 80, 24),
    "details, scrolled": (lambda: after(view(), "enter", "end"), 60, 12),
    "why": (lambda: heard(view(), Pane(kind="why", lines=("rule 1 matches", "leaves by fibre"))), 80, 24),
    "a filter while it is typed": (lambda: after(view(), "/", *"tcp :443"), 80, 24),
    "a filter that makes no sense": (lambda: after(view(), "/", *"to:nowhere", "enter"), 80, 24),
    "a connection is selected": (lambda: after(view(), "tab", "down", "down"), 80, 24),
    "quota": (quotas, 80, 24),
}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen_is_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    make, columns, rows = SCREENS[name]
    made, now = make(), datetime.now(UTC)
    lines = text(made, columns, rows, now)
    assert len(lines) == rows
    assert max(map(cell_len, lines)) <= columns
    assert all(line.isprintable() for line in lines)
    found = "\n".join(lines) + "\n"
    for moment, shown in ((now, "12:34:56"), (made.heard, "12:33:41")):
        found = found.replace(moment.strftime("%H:%M:%S"), shown)
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def test_every_recorded_screen_is_still_made() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} <= SCREENS.keys()
