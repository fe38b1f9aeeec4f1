"""What `polywan quota` prints, and what `polywan status` says of quotas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from polywan.api import calls
from polywan.api.status import UplinkStatus
from polywan.api.views.quota import QuotaChanged, QuotaStatus
from polywan.cli import group, oneuplink, overview
from polywan.client import Client
from support.documents import status, uplink

GB = 10**9
TEXT = "46.2 GB of 50.0 GB used (92 %) until 2026-12-15; the soft limit of 45.0 GB is passed: it gets a tenth"


def quota(**changes: Any) -> QuotaStatus:
    known: dict[str, Any] = {
        "kind": "monthly",
        "state": "soft",
        "action": "less",
        "used_bytes": 46_200_000_000,
        "soft_bytes": 45 * GB,
        "hard_bytes": 50 * GB,
        "since": "2026-11-15T12:00:00.000+00:00",
        "resets": "2026-12-15T12:00:00.000+00:00",
        "forecast_bytes": 58_900_000_000,
        "runs_out": "2026-12-09T12:00:00.000+00:00",
        "reading_bytes": None,
        "reading_at": None,
        "text": TEXT,
    }
    return QuotaStatus(**known | changes)


def run(monkeypatch: pytest.MonkeyPatch, uplinks: list[UplinkStatus], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(Client, "ask", lambda *_: status(*uplinks))
    done = CliRunner().invoke(group, ["quota", *words])
    return done.exit_code, done.output


LTE, DSL = uplink("lte", quota=quota()), uplink("dsl")


def test_every_quota_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(monkeypatch, [LTE, DSL])
    heading, line = text.splitlines()
    assert heading.split() == ["UPLINK", "STATE", "USED", "OF", "FORECAST", "RUNS", "OUT", "RESETS", "ACTION"]
    assert line == "lte     soft   46.2 GB  50.0 GB   58.9 GB  2026-12-09  2026-12-15  less"
    assert code == 0


def test_one_uplink_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read = uplink("lte", quota=quota(reading_bytes=37 * GB, reading_at="2026-12-01T12:00:00.000+00:00"))
    _, text = run(monkeypatch, [read, DSL], "lte")
    assert text.splitlines() == [
        f"lte: {TEXT}",
        "  state       soft, action: less",
        "  used        46.2 GB since 2026-11-15",
        "  limits      soft 45.0 GB, hard 50.0 GB",
        "  resets      2026-12-15",
        "  forecast    58.9 GB",
        "  runs out    2026-12-09",
        "  provider    37.0 GB, 2026-12-01",
    ]


def test_programs_get_the_same_document_as_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = run(monkeypatch, [LTE, DSL], "--json")
    (document,) = json.loads(text)["quotas"]
    assert (document["uplink"], document["used_bytes"], document["state"]) == ("lte", 46_200_000_000, "soft")


def test_without_a_quota_it_says_how_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [DSL]) == (
        0,
        "no uplink has a quota: add [uplinks.NAME.quota] to the configuration\n",
    )


@pytest.mark.parametrize(("saved", "code"), [(True, 0), (False, 1)])
def test_an_entry_that_is_not_kept_is_no_success(monkeypatch: pytest.MonkeyPatch, saved: bool, code: int) -> None:
    asked = []

    def ask(_: Client, call: object, request: Any) -> QuotaChanged:
        asked.append((call, request.name, request.reading, request.bought))
        return QuotaChanged(uplink="lte", quota=quota(), warnings=() if saved else ("lost",), saved=saved)

    monkeypatch.setattr(Client, "ask", ask)
    done = CliRunner().invoke(group, ["quota", "lte", "--reading", "46.2GB"])
    assert (done.exit_code, done.stdout) == (code, f"lte: {TEXT}\n")
    assert asked == [(calls.QUOTA, "lte", "46.2GB", None)]


def test_status_has_a_line_once_a_limit_is_passed() -> None:
    assert f"lte: quota: {TEXT}" in overview.text(status(LTE, DSL)).splitlines()
    within = uplink("lte", quota=quota(state="within", action="none"))
    assert "quota" not in overview.text(status(within, DSL))


def test_status_of_one_uplink_has_its_quota_always() -> None:
    within = uplink("lte", quota=quota(state="within", action="none", text="1.0 GB of 50.0 GB used (2 %)"))
    assert "  quota       1.0 GB of 50.0 GB used (2 %)" in oneuplink.text(within, ()).splitlines()
