"""The rules and the dashboard that are shipped, as queries; and the names that a query may use."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polywan.core.metrics.exposition import METRICS
from polywan.core.metrics.metric import Kind, Metric

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "packaging/prometheus/polywan.rules.yml"
RULE_TESTS = ROOT / "packaging/prometheus/polywan.rules.test.yml"
DASHBOARD = ROOT / "packaging/grafana/polywan.json"

FOREIGN = {"node_textfile_mtime_seconds": {"file"}}
"""Metrics of node_exporter that are asked for, with their labels."""

OF_SCRAPE = {"instance", "job"}
"""Labels that Prometheus adds."""

_EXPRESSION = re.compile(r"^ +expr: (?:\|-\n((?: {10}.*\n|\n)+)|(.*)\n)", re.MULTILINE)

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="tool missing: promtool (package prometheus of Debian)"
)


def rule_queries() -> list[str]:
    """Return the expressions of rules and alerts."""
    return [block or line for block, line in _EXPRESSION.findall(RULES.read_text("utf-8"))]


def recorded() -> set[str]:
    """Return the names of recording rules."""
    return set(re.findall(r"- record: (\S+)", RULES.read_text("utf-8")))


def alerts() -> list[str]:
    """Return the names of alerts."""
    return re.findall(r"- alert: (\S+)", RULES.read_text("utf-8"))


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def dashboard_queries() -> list[str]:
    """Return every query of the dashboard, with values for the variables of Grafana."""
    return [
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$uplink", ".*")
        for expression in _expressions(dashboard())
    ]


def _expressions(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"]
        for inner in part.values():
            yield from _expressions(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _expressions(inner)


def series() -> dict[str, set[str]]:
    """Return the labels of every series that exists, by its name."""
    found = {name: labels | OF_SCRAPE for name, labels in FOREIGN.items()}
    for metric in METRICS:
        labels = {*metric.labels, *OF_SCRAPE, *([metric.name] if metric.kind is Kind.STATESET else [])}
        found |= dict.fromkeys(_names(metric), labels | ({"le"} if metric.kind is Kind.HISTOGRAM else set()))
    return found


def _names(metric: Metric) -> list[str]:
    if metric.kind is Kind.HISTOGRAM:
        return [f"{metric.name}{ending}" for ending in ("_bucket", "_sum", "_count")]
    return [metric.sample]
