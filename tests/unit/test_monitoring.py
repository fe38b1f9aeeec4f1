"""Rules for Prometheus and the dashboard for Grafana ask for metrics that exist; alerts fire when they should."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from support.monitoring import (
    FOREIGN,
    OF_SCRAPE,
    ROOT,
    RULE_TESTS,
    RULES,
    alerts,
    dashboard,
    dashboard_queries,
    promtool,
    recorded,
    rule_queries,
    series,
)
from support.runbook import RUNBOOK, runbook

QUERIES = [*rule_queries(), *dashboard_queries()]
GUIDE = ROOT / "docs/guide/metrics.md"
SERVICE = RULES.with_name("polywan-metrics.service")
WORDS = {"by", "on", "and", "or"}


def anchor(title: str) -> str:
    """Return what a heading is called in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def check(*arguments: str, folder: Path) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_queries_are_found() -> None:
    assert len(rule_queries()) == len(alerts()) + len(recorded())
    assert len(dashboard_queries()) > len(dashboard()["panels"])


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_in_a_query_exists(query: str) -> None:
    known = series().keys() | recorded()
    outside = re.sub(r"\{[^}]*\}", "", query)
    names = set(re.findall(r"\b(?:polywan|node)[\w:]*", outside))
    assert names
    assert names <= known


@pytest.mark.parametrize("query", QUERIES)
def test_every_label_that_is_selected_is_one_of_the_metric(query: str) -> None:
    known = series()
    for name, inside in re.findall(r"([\w:]+)\{([^}]*)\}", query):
        if name not in recorded():
            assert set(re.findall(r"(\w+)\s*[=!]", inside)) <= known[name]
    everywhere = set().union(*known.values())
    for grouped in re.findall(r"\b(?:by|on|group_left|ignoring|without)\s*\(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",") if label.strip()} <= everywhere


def test_states_that_are_asked_for_are_states() -> None:
    from polywan.core.metrics.uplinks import STATES
    from polywan.core.metrics.volumes import QUOTA_STATES

    asked = re.findall(r'(polywan_\w+_state)=~?"([^"]*)"', "\n".join(QUERIES))
    assert {name for name, _ in asked} == {"polywan_uplink_state", "polywan_quota_state"}
    for name, words in asked:
        assert set(words.split("|")) <= {*(STATES if name == "polywan_uplink_state" else QUOTA_STATES)}


@promtool
def test_promtool_finds_the_rules_good_and_every_alert_fires_when_it_should() -> None:
    check("check", "rules", RULES.name, folder=RULES.parent)
    check("test", "rules", RULE_TESTS.name, folder=RULES.parent)


@promtool
def test_promtool_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    lines = ["groups:", "  - name: dashboard", "    rules:"]
    for number, query in enumerate(dashboard_queries()):
        lines += [f"      - record: dashboard:{number}", "        expr: |-"]
        lines += [f"          {line}" for line in query.splitlines()]
    (tmp_path / "dashboard.yml").write_text("\n".join([*lines, ""]))
    check("check", "rules", "dashboard.yml", folder=tmp_path)


def test_every_alert_and_every_recording_rule_has_a_test() -> None:
    text = RULE_TESTS.read_text("utf-8")
    firing = set(re.findall(r"alertname: (\w+)\n +exp_alerts:\n", text))
    assert firing == set(alerts())
    assert {name for name in recorded() if name in text} == recorded()


def test_the_guide_lists_every_alert() -> None:
    listed = re.findall(r"^\| `(Polywan\w+)` \|", GUIDE.read_text("utf-8"), re.MULTILINE)
    assert listed == alerts()


def test_every_alert_has_a_severity_and_says_what_to_do_in_the_runbook() -> None:
    text = RULES.read_text("utf-8")
    assert len(re.findall(r"severity: (?:warning|critical)\n", text)) == len(alerts())
    links = re.findall(r"runbook_url: file:///usr/share/doc/polywan/docs/runbook\.md#(\S+)\n", text)
    assert len(links) == len(alerts())
    assert set(links) <= {anchor(section.title) for section in runbook()}
    assert RUNBOOK == ROOT / "docs/runbook.md"


def test_what_is_asked_of_others_is_asked() -> None:
    assert all(any(name in query for query in QUERIES) for name in FOREIGN)
    assert {"instance", "job"} == OF_SCRAPE


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_panels_have_a_place_a_name_and_an_explanation() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"].endswith((".", "?")) for panel in panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert not [pair for pair in combinations(panels, 2) if overlap(pair[0]["gridPos"], pair[1]["gridPos"])]


def test_the_dashboard_asks_the_source_that_is_chosen_and_shares_its_crosshair() -> None:
    found = dashboard()
    assert found["graphTooltip"] == 1
    assert {variable["name"] for variable in found["templating"]["list"]} == {"datasource", "instance", "uplink"}
    for panel in found["panels"]:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))


def test_the_service_writes_the_file_that_the_guide_names() -> None:
    start = re.findall(r"^ExecStart=(.*)$", SERVICE.read_text("utf-8"), re.MULTILINE)
    assert start == ["polywan metrics --out /var/lib/prometheus/node-exporter/polywan.prom --every 15s"]
    assert start[0] in GUIDE.read_text("utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="tool missing: systemd-analyze (package systemd)")
def test_systemd_finds_nothing_to_complain_of_in_the_service(tmp_path: Path) -> None:
    program = tmp_path / "polywan"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text("utf-8").replace("=polywan ", f"={program} "))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert [line for line in done.stderr.splitlines() if SERVICE.name in line] == []
