"""What the benchmark of connection tracking reads from outputs, and how it reports."""

from __future__ import annotations

from typing import Any

import pytest
from budgets import BUDGETS
from report import judged, summary
from tracking import FORMS, ORDERS, after, listed, markdown

from polywan.api.views.flow_rows import FlowRow
from polywan.cli import flows as flows_verb

ROW = FlowRow(
    4, 17, "192.168.15.10", 9000, "203.0.113.10", 9001, "203.0.113.10", 9001, "100.64.1.2", 9000,
    "ASSURED", 0x100, 1.5, 30, 10, 20, 1, 1, 0, "isp1",
)  # fmt: skip


def result(ms: float) -> dict[str, Any]:
    return {
        "flows": {"entries": 60000, **{form: {order: summary([ms]) for order in ORDERS} for form in FORMS}},
        "freeing": {key: summary([ms]) for key in ("first_ms", "median_ms", "last_ms")} | {"connections": 10000},
    }


def test_connections_are_counted_in_the_text_and_in_the_json_of_the_command() -> None:
    assert listed("\n".join(flows_verb.text([ROW, ROW])) + "\n", "text") == 2
    assert listed(", ".join(flows_verb.objects([ROW, ROW])), "json") == 2


def test_ends_are_told_from_the_verdict_on() -> None:
    assert after(100.0, [100.3, 100.1, 100.2]) == {"first_ms": 100.0, "median_ms": 200.0, "last_ms": 300.0}


def test_an_end_before_the_log_line_was_read_is_at_once() -> None:
    assert after(100.0, [99.9, 100.0])["first_ms"] == 0


def test_the_report_has_every_order_and_the_number_of_connections() -> None:
    text = markdown(result(250.0))
    assert all(f"| {order} | 250 (250..250) | 250 (250..250) |" in text for order in ORDERS)
    assert "10000 idle TCP connections" in text


def test_fewer_connections_than_the_budget_names_are_no_measurement_of_it() -> None:
    few = result(1.0)
    few["flows"]["entries"] = 59_999
    few["freeing"]["connections"] = 9_999
    assert [v for _, v in judged({"tracking": few}, BUDGETS) if v.met is not None] == []


@pytest.mark.parametrize(("ms", "met"), [(500.0, {True}), (1001.0, {False})])
def test_every_order_and_the_last_reset_have_a_budget(ms: float, met: set[bool]) -> None:
    verdicts = [verdict for _, verdict in judged({"tracking": result(ms)}, BUDGETS) if verdict.met is not None]
    assert len(verdicts) == len(FORMS) * len(ORDERS) + 1
    assert {verdict.met for verdict in verdicts} == met
