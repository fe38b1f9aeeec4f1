"""Reports: what is known is summed up, what is not is said to be unknown, and no name gets into the page as markup."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from polywan.api import calls
from polywan.api.views.measurements import (
    Availability,
    Beat,
    ClientVolume,
    Incident,
    Incidents,
    Measurements,
    Series,
    UplinkVolume,
    Volumes,
)
from polywan.cli import group
from polywan.cli.report_page import page
from polywan.cli.report_text import MOST_OUTAGES, Month, percent, table, text
from polywan.client import Client
from polywan.core.measurements.report import report
from polywan.core.measurements.tiers import HOURS, tier_of

BEGIN = datetime(2026, 11, 1).timestamp()  # noqa: DTZ001 - local time
NOW = BEGIN + 20 * 86400 + 43200.0
EVIL = '<script>alert("x")</script>&"\'><img src=x>'


def iso(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().isoformat(timespec="milliseconds")


def beat(day: int, down: float = 0.0, *, up: float = 86400.0, off: float = 0.0) -> Beat:
    start = iso((datetime.fromtimestamp(BEGIN) + timedelta(days=day)).timestamp())  # noqa: DTZ006 - local time
    return Beat(start=start, seconds=86400, up=up - down, degraded=0.0, down=down, off=off, reasons=())


def outage(number: int, seconds: float, reason: str = "no carrier", uplink: str = "fibre") -> Incident:
    since = BEGIN + 3600.0 * number
    return Incident(
        id=number,
        uplink=uplink,
        state="down",
        since=iso(since),
        until=iso(since + seconds),
        seconds=seconds,
        reason=reason,
        evidence=(reason,),
    )


def month(count: int = 3, name: str = "fibre", reason: str = "no carrier", clients: int = 0) -> Month:
    days = (
        [beat(n, 90.0 if n == 3 else 0.0) for n in range(20)]
        + [beat(20, up=40_000.0)]
        + [beat(n, up=0) for n in range(21, 30)]
    )
    rows = tuple((BEGIN + 3600.0 * n, 20.0 + n, 0.001 * n, 1.0 if n else 0.5) for n in range(10))
    series = Series(
        uplink=name, columns=("time", "rtt_ms", "loss", "served"), points=((BEGIN - 3600, None, None, None), *rows)
    )
    volume = UplinkVolume(
        month="2026-11", uplink=name, rx_bytes=412_700_000_000, tx_bytes=38_000_000_000, probe_bytes=90_000
    )
    incidents = [outage(n, 30.0 + n, reason, name) for n in range(count, 0, -1)]
    return Month(
        name="2026-11",
        host="router",
        now=NOW,
        uplinks=(report(name, days, incidents, [volume], [series], NOW),),
        clients=tuple(
            ClientVolume(month="2026-11", client=f"192.168.1.{n}", rx_bytes=10**9 // n, tx_bytes=10**8 // n)
            for n in range(1, clients + 1)
        ),
        problems=(),
    )


def test_availability_counts_known_time_alone_and_the_rest_is_unknown() -> None:
    (one,) = month().uplinks
    assert len(one.days) == 21
    assert one.total.unknown == 43200.0 - 40_000.0
    assert one.availability == 1 - 90.0 / (20 * 86400 + 40_000)


def test_time_out_of_use_by_order_counts_neither_way() -> None:
    found = report("a", [beat(0, 100.0, up=43_200.0, off=43_200.0)], [], [], [], NOW)
    assert found.availability == 1 - 100.0 / 43_200.0
    assert report("a", [beat(0, up=0.0)], [], [], [], NOW).availability is None


def test_nothing_is_rounded_up_to_all() -> None:
    assert [percent(part) for part in (1.0, 0.999_999_97, 0.58, 0.5, 0.0, None)] == [
        "100.000 %",
        "99.999 %",
        "58.000 %",
        "50.000 %",
        "0.000 %",
        "unknown",
    ]


def test_the_text_says_outages_volume_and_worst_hours() -> None:
    said = text(month())
    assert "fibre: available 99.994 %" in said
    assert "412.7 GB in, 38.0 GB out" in said
    assert "down for 33 s: no carrier" in said
    assert "slowest hours: 01 Nov 09:00 (29.0 ms), 01 Nov 08:00 (28.0 ms)" in said
    assert "hours with most outage: 01 Nov 03:00 (33 s)" in said
    assert "unknown" in said


def test_an_outage_over_the_end_of_an_hour_counts_in_both() -> None:
    found = report("fibre", (), (outage(0, 3600 * 1.5), outage(2, 60.0), outage(4, 60.0, uplink="dsl")), (), (), BEGIN)
    assert [(hour.start - BEGIN, hour.value) for hour in found.darkest] == [(0, 3600), (3600, 1800), (7200, 60)]


def test_an_outage_that_began_before_the_month_counts_from_its_first_hour_on() -> None:
    found = report("fibre", (beat(0),), (outage(-1, 3600 * 1.5),), (), (), BEGIN + 90_000)
    assert [(hour.start - BEGIN, hour.value) for hour in found.darkest] == [(0, 1800)]


def test_many_outages_are_cut_to_the_longest_and_counted() -> None:
    for said in (text(month(25)), page(month(25))):
        assert said.count("no carrier") == MOST_OUTAGES
        assert "and 13 shorter outages" in said


class Reader(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader.seen


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_name_and_no_reason_becomes_markup(name: str, reason: str) -> None:
    plain, found = elements(page(month())), elements(page(month(name=name, reason=reason or "x")))
    assert [tag for tag, _ in found] == [tag for tag, _ in plain]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = page(month(name=EVIL, reason=EVIL, clients=30))
    for tag, attributes in elements(html):
        assert tag not in ("script", "link", "img", "iframe", "object", "form", "a")
        assert not {"src", "href"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?:", html)
    assert len(html) < 30_000


def test_a_table_has_a_row_for_each_day_and_no_formula() -> None:
    rows = [*csv.DictReader(io.StringIO(table(month(name="=cmd()"))))]
    assert len(rows) == 21
    assert rows[3] == {
        "uplink": "'=cmd()",
        "date": "2026-11-04",
        "up_s": "86310",
        "degraded_s": "0",
        "down_s": "90",
        "off_s": "0",
        "unknown_s": "0",
        "outages": "0",
    }
    assert rows[0]["outages"] == "3"


DAYS = tuple(beat(n, up=86400.0 if n < 20 else 43200.0 if n == 20 else 0.0) for n in range(30))


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum(a1)"])
def test_no_name_is_a_formula(name: str) -> None:
    assert {row["uplink"] for row in csv.DictReader(io.StringIO(table(month(name=name))))} == {f"'{name}"}


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []
    answers = {
        calls.AVAILABILITY: Availability(schema=1, uplinks=dict.fromkeys(("fibre", "dsl"), DAYS)),
        calls.INCIDENTS: Incidents(schema=1, incidents=(outage(1, 30.0),), more=False),
        calls.VOLUMES: Volumes(schema=1, uplinks=(), clients=(), problem="the disk is full"),
        calls.MEASURED: Measurements(schema=1, step_s=3600, series=(), problem=""),
    }

    def ask(_: Client, call: Any, question: Any) -> Any:
        asked.append(question)
        return answers[call]

    monkeypatch.setattr(Client, "ask", ask)
    monkeypatch.setattr("polywan.cli.report.time.time", lambda: NOW)
    return asked


def test_the_verb_asks_for_the_month_and_says_what_is_missing(daemon: list[Any]) -> None:
    done = CliRunner().invoke(group, ["report", "--uplink", "fibre"])
    assert done.exit_code == 0
    assert "fibre: available 100.000 %" in done.output
    assert "dsl" not in done.output
    assert "not complete: the disk is full" in done.output
    span, incidents, of_month, measured = daemon
    assert (span.span, of_month.month) == ("2026-11", "2026-11")
    assert datetime.fromisoformat(incidents.since).timestamp() == BEGIN
    assert measured.points == str(20 * 24 + 12)


@pytest.mark.parametrize("later", [0.0, 0.4, 1800.5, 3599.0])
def test_the_worst_hours_are_hours_at_any_moment_of_the_month(
    daemon: list[Any], monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    for now in (BEGIN + 60 + later, NOW + later):
        monkeypatch.setattr("polywan.cli.report.time.time", lambda now=now: now)
        assert CliRunner().invoke(group, ["report", "--month", "2026-11"]).exit_code == 0
        measured = daemon[-1]
        since, until = (datetime.fromisoformat(text).timestamp() for text in (measured.since, measured.until))
        assert since <= BEGIN + 3600
        assert tier_of(since, until, now, int(measured.points)) == (HOURS, 3600)


@pytest.mark.parametrize(("hours", "month"), [(25, "2026-10"), (23, "2026-03")])
def test_a_month_ends_with_its_last_day_where_the_clocks_are_changed(
    daemon: list[Any], monkeypatch: pytest.MonkeyPatch, hours: int, month: str
) -> None:
    days = [beat(0), Beat(start=iso(BEGIN + 86400), seconds=hours * 3600, up=0, degraded=0, down=0, off=0, reasons=())]
    answer = Availability(schema=1, uplinks={"fibre": tuple(days)})
    before = Client.ask
    monkeypatch.setattr(Client, "ask", lambda c, call, q: answer if call is calls.AVAILABILITY else before(c, call, q))
    CliRunner().invoke(group, ["report", "--month", month])
    assert datetime.fromisoformat(daemon[-1].until).timestamp() == BEGIN + 86400 + hours * 3600


def test_hours_before_the_month_are_not_among_the_worst() -> None:
    rows = ((BEGIN - 1800.0, 900.0), (BEGIN, 20.0))
    series = Series(uplink="fibre", columns=("time", "rtt_ms"), points=rows)
    assert report("fibre", [beat(0)], [], [], [series], NOW).slowest == ((BEGIN, 20.0),)


def test_json_has_all_that_the_daemon_said(daemon: list[Any]) -> None:
    found = json.loads(CliRunner().invoke(group, ["report", "--json"]).output)
    assert [*found] == ["availability", "incidents", "volumes", "measurements"]


def test_json_about_one_uplink_tells_a_provider_nothing_of_others_and_of_clients(
    daemon: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = Volumes(
        schema=1,
        uplinks=tuple(UplinkVolume(month="2026-11", uplink=n, rx_bytes=1, tx_bytes=1, probe_bytes=0) for n in "ab"),
        clients=(ClientVolume(month="2026-11", client="192.168.1.7", rx_bytes=1, tx_bytes=1),),
        problem="",
    )
    before = Client.ask
    monkeypatch.setattr(Client, "ask", lambda c, call, q: volumes if call is calls.VOLUMES else before(c, call, q))
    found = json.loads(CliRunner().invoke(group, ["report", "--json", "--uplink", "fibre"]).output)
    assert [*found["availability"]["uplinks"]] == ["fibre"]
    assert (found["volumes"]["uplinks"], found["volumes"]["clients"]) == ([], [])


def test_what_is_missing_is_said_beside_a_table_and_incidents_beyond_the_bound_are_missing(
    daemon: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Incidents(schema=1, incidents=(outage(1, 30.0),), more=True)
    before = Client.ask
    monkeypatch.setattr(Client, "ask", lambda c, call, q: many if call is calls.INCIDENTS else before(c, call, q))
    done = CliRunner().invoke(group, ["report", "--format", "csv"])
    assert done.stdout.startswith("uplink,date,")
    assert "not complete" not in done.stdout
    assert "not complete: the disk is full" in done.stderr
    assert "not complete: there were too many outages" in done.stderr
    assert "not complete: there were too many outages" in CliRunner().invoke(group, ["report"]).stdout


def test_a_file_is_written_once_and_never_replaced(daemon: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    argv = ["report", "--format", "html", "--out", str(path)]
    assert CliRunner().invoke(group, argv).exit_code == 0
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    path.write_text("mine")
    assert "is there already" in str(CliRunner().invoke(group, argv).exception)
    assert path.read_text() == "mine"


def test_a_month_that_has_not_begun_is_wrong_use(daemon: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polywan.cli.report.time.time", lambda: BEGIN - 86400.0)
    done = CliRunner().invoke(group, ["report", "--month", "2026-11"])
    assert done.exit_code == 2
    assert "2026-11 has not begun" in done.output


@pytest.mark.parametrize("word", ["2026-13", "11-2026", "November", "2026-11-01", "24h", ""])
def test_what_is_no_month_is_refused_before_the_daemon_is_asked(word: str) -> None:
    done = CliRunner().invoke(group, ["report", "--month", word])
    assert (done.exit_code, 'expected a month such as "2026-11"' in done.stderr) == (2, True)
