from __future__ import annotations

import json
from typing import Any

import pytest
from budgets import BUDGETS, Budget, at, connected, most, packet
from compare import compared, numbers
from failover import Run, sum_up
from footprint import fields
from peers import STUDY
from report import SCHEMA, broken, cell, guested, left_out, render, summary, table
from world import configuration

from polywan.config.loading.loader import load_text
from polywan.core.net import Family
from polywan.lab.traffic import Attempt


def budget(limit: float = 10, *, timed: bool = True) -> Budget:
    return Budget(what="a thing", limit=limit, unit="ms", value=at("control", "thing_ms"), timed=timed)


def report(results: dict[str, Any], *, quick: bool = False, failed: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "quick": quick,
        "version": "1.2.3",
        "revision": "abc",
        "date": "2026-01-01T00:00:00+00:00",
        "seconds": 12.3,
        "load": [0.5, 1.5],
        "environment": {"kernel": "6.1"},
        "results": results,
        "failed": failed or {},
    }


def sizes(reload_writes: int, other: int = 0) -> dict[str, Any]:
    return {str(n): {"writes": {"reload": {"writes": w}}} for n, w in ((2, reload_writes), (53, other))}


def test_a_budget_is_met_up_to_its_limit() -> None:
    verdict = budget().judge({"control": {"thing_ms": 10}})
    assert (verdict.met, verdict.measured, verdict.text) == (True, "10 ms", "yes")


def test_a_missed_budget_says_by_how_much() -> None:
    verdict = budget().judge({"control": {"thing_ms": 12.5}})
    assert (verdict.met, verdict.measured, verdict.text) == (False, "12.50 ms", "**missed by 25 %**")


def test_a_narrow_miss_is_a_miss() -> None:
    verdict = budget().judge({"control": {"thing_ms": 10.04}})
    assert (verdict.met, verdict.text) == (False, "**missed by less than 1 %**")


def test_a_budget_of_nothing_is_missed_without_a_percentage() -> None:
    assert budget(0).judge({"control": {"thing_ms": 1}}).text == "**missed**"


@pytest.mark.parametrize("results", [{}, {"control": {}}, {"control": {"thing_ms": None}}, {"control": 3}])
def test_what_was_not_measured_is_neither_met_nor_missed(results: dict[str, Any]) -> None:
    assert budget().judge(results).met is None


def test_no_budget_stumbles_over_an_empty_run() -> None:
    assert {each.judge({}).met for each in BUDGETS} == {None}


def test_every_budget_has_words_of_its_own() -> None:
    assert len({each.what for each in BUDGETS}) == len(BUDGETS)


def test_the_cost_of_a_packet_is_found_by_kind_and_number() -> None:
    rows = [
        {"design": "bare", "kind": "out", "uplinks": 53, "ratio": 1.0},
        {"design": "polywan", "kind": "in", "uplinks": 53, "ratio": 1.3},
        {"design": "polywan", "kind": "out", "uplinks": 53, "ratio": 1.2},
    ]
    assert packet("out", 53)({"dataplane": {"rows": rows}}) == 1.2
    assert packet("out", 200)({"dataplane": {"rows": rows}}) is None


def test_a_count_is_judged_by_its_worst_size() -> None:
    find = most("control", "sizes", "writes", "reload", "writes")
    assert find({"control": {"sizes": sizes(0, 3)}}) == 3
    assert find({"control": {"sizes": {}}}) is None


def test_a_run_is_broken_by_a_count_but_not_by_a_time() -> None:
    slow = {"control": {"sizes": {"53": {"full_ms": {"median": 1e6}}}}}
    assert broken(report(slow)) == []
    assert broken(report({"control": {"sizes": sizes(2)}})) == [
        "reload without a change: operations written: **missed**"
    ]


def test_a_run_is_broken_by_a_module_that_failed() -> None:
    assert broken(report({}, failed={"hitless": "LabError: no"})) == ["hitless failed: LabError: no"]


def test_what_a_module_lacked_is_named_and_breaks_nothing() -> None:
    document = report({"dataplane": {"absent": "gcc (package gcc)", "rows": []}})
    assert left_out(document) == ["dataplane was left out: gcc (package gcc) absent"]
    assert broken(document) == []
    assert "- dataplane was left out: gcc (package gcc) absent" in render(document, {})


def test_the_report_begins_with_machine_and_versions_and_then_the_budgets() -> None:
    text = render(report({}), {"control": "### Control\n\nfast\n"})
    order = [text.index(part) for part in ("| polywan | 1.2.3 abc |", "| kernel | 6.1 |", "## Budgets", "### Control")]
    assert order == sorted(order)


def test_a_quick_run_judges_counts_and_no_times() -> None:
    results = {"control": {"sizes": {"53": {"full_ms": {"median": 1.0}, "writes": {"reload": {"writes": 0}}}}}}
    lines = render(report(results, quick=True), {}).splitlines()
    assert "| full apply from nothing, 53 uplinks ≤ 40 ms | 1 ms | not judged |" in lines
    assert "| reload without a change: operations written ≤ 0 | 0 | yes |" in lines


def test_the_report_is_plain_data() -> None:
    document = report({"control": {"thing_ms": summary([3.0, 1.0, 2.0])}})
    assert json.loads(json.dumps(document)) == document


def test_a_summary_keeps_median_extremes_and_number() -> None:
    found = summary([5.0, 1.0, 2.0])
    assert found == {"median": 2.0, "min": 1.0, "max": 5.0, "runs": 3}
    assert cell(found) == "2.0 (1.0..5.0)"


def test_a_table_survives_bars_and_line_ends_in_its_cells() -> None:
    assert list(table(["a", "b"], [("x|y", "1\n2")])) == ["| a | b |", "|---|---|", "| x\\|y | 1 2 |"]


def attempt(started: float, took: float | None, error: str = "") -> Attempt:
    connected = None if took is None else started + took
    ended = (connected or started + 5.0) + 0.001
    return Attempt(family=Family.V4, started=started, connected=connected, ended=ended, uplink=1, error=error)


def test_a_fault_hurts_what_fails_and_what_repeats_its_syn() -> None:
    met = (attempt(100.1, 0.001), attempt(100.5, 1.02), attempt(100.3, None, "timeout"))
    found = Run(at=100.0, verdict=100.7, switched=100.8, attempts=(attempt(99.0, 0.001), *met)).as_data()
    assert (found["tried"], found["failed"], found["retried"]) == (3, 1, 1)
    assert (found["last_failed_ms"], found["last_hurt_ms"]) == (300.0, 500.0)
    assert found["errors"] == {"timeout": 1}


def test_runs_of_a_fault_are_summed_up_with_the_worst_one_visible() -> None:
    runs = [Run(at=0.0, verdict=v, switched=v, attempts=[attempt(v / 2, 1.5)]).as_data() for v in (0.2, 0.8, 0.4)]
    found = sum_up(runs)
    assert (found["tried"], found["retried"], found["failed"]) == (3, 3, 0)
    assert (found["verdict_ms"]["median"], found["last_hurt_ms"]["max"]) == (400.0, 400.0)


def test_only_medians_are_compared_and_only_where_both_have_them() -> None:
    old = report({"control": {"a_ms": summary([2.0, 4.0, 6.0]), "gone": 1}})
    new = report({"control": {"a_ms": summary([1.0, 2.0, 3.0])}})
    assert compared([old], [new]) == [("control.a_ms", "4 (4..4)", "2 (2..2)", "0.50")]


def test_rows_of_designs_are_compared_by_their_ratio() -> None:
    row = {"design": "polywan", "kind": "out", "uplinks": 53, "ratio": 1.2, "ns": 400}
    assert dict(numbers({"rows": [row], "text": "12", "flag": True})) == {"rows.53.polywan.out.ratio": 1.2}


def test_fields_of_proc_are_read_by_name() -> None:
    assert fields("VmRSS:\t  1234 kB\nThreads:\t3\n") == {"VmRSS": "1234 kB", "Threads": "3"}


@pytest.mark.parametrize("uplinks", [2, 62, 63, 200])
def test_the_configuration_of_any_size_is_valid(uplinks: int) -> None:
    config = load_text(configuration(uplinks, weights={2: 5}, health={"interval": "200ms", "rise": 1}))
    assert len(config.uplinks) == uplinks
    assert (config.weight_of("isp1"), config.weight_of("isp2")) == (1, 5)
    assert (config.health.interval, config.health.rise) == (0.2, 1)
    assert config.global_.mark_mask == (0x3F000000 if uplinks <= 62 else 0xFF00)


def test_the_study_names_a_figure_of_two_uplinks_for_every_tool() -> None:
    assert all(2 in figures for tools in STUDY.values() for figures in tools.values())


def test_a_guest_has_its_own_machine_and_budgets_at_the_end_of_the_report() -> None:
    row = {"design": "polywan", "kind": "out", "uplinks": 53, "ratio": 0.4}
    guest = report({"dataplane": {"rows": [row]}})
    text = render(report({}), {"control": "### Control"}, guest=list(guested(guest, {"dataplane": "### Packets"})))
    assert (
        text.index("### Control") < text.index("## On a kernel with flowtables, in a guest") < text.index("### Packets")
    )
    bare = "router CPU against bare forwarding with masquerade"
    met = f"| established packet out, 53 uplinks: {bare} ≤ 1 x | 0.40 x | yes |"
    assert met in text


def test_connections_a_second_are_judged_by_the_time_of_each() -> None:
    results = {"dataplane": {"tcp": [{"design": "bare", "ratio": 1.0}, {"design": "polywan", "ratio": 0.8}]}}
    assert connected(results) == 1.25
    assert connected({}) is None
