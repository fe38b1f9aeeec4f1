"""The report: tables in Markdown, and what was measured held against the budgets. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from budgets import BUDGETS, WITH_FLOWTABLES, Budget, Verdict
from stats import median, spread

SCHEMA: Final = 1
"""Version of report.json; its keys only ever grow."""

_WHY: Final = (
    "Why a budget is missed, and what it would need, is in [docs/adr/0021](../docs/adr/0021-what-a-packet-costs.md), "
    "and for decisions in [0043](../docs/adr/0043-what-a-decision-costs.md)."
)
_MEANS: Final = (
    "Only ratios within one run count: absolute times move with whatever else the machine does. "
    "How each table is made, and what can mislead, is in [bench/README.md]({readme})."
)


_GUEST: Final = (
    "User-mode Linux on the same machine (`make bench-vm`). Processor time is counted in ticks of 10 ms there, so that "
    "single figures scatter; nanoseconds cannot be compared with those above."
)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, extremes and number of runs."""
    low, high = spread(values)
    return {"median": round(median(values), 3), "min": round(low, 3), "max": round(high, 3), "runs": len(values)}


def cell(found: Mapping[str, float], digits: int = 1) -> str:
    """Write a summary as ``median (smallest..largest)``."""
    return f"{found['median']:.{digits}f} ({found['min']:.{digits}f}..{found['max']:.{digits}f})"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield _row(heads)
    yield "|---" * len(heads) + "|"
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |"


def judged(results: Mapping[str, Any], budgets: Iterable[Budget] = BUDGETS) -> list[tuple[Budget, Verdict]]:
    """Hold results, by module, against budgets."""
    return [(budget, budget.judge(results)) for budget in budgets]


def broken(report: Mapping[str, Any]) -> list[str]:
    """Name what makes a run fail: modules that did not finish, and missed budgets that time has no part in."""
    modules = [f"{name} failed: {reason}" for name, reason in report["failed"].items()]
    counts = [
        f"{budget.what}: {verdict.text}"
        for budget, verdict in judged(report["results"])
        if not budget.timed and verdict.met is False
    ]
    return modules + counts


def left_out(report: Mapping[str, Any]) -> list[str]:
    """Name the modules that could not measure, and what they lacked."""
    return [
        f"{name} was left out: {result['absent']} absent"
        for name, result in report["results"].items()
        if result.get("absent")
    ]


def render(
    report: Mapping[str, Any], sections: Mapping[str, str], readme: str = "bench/README.md", guest: Sequence[str] = ()
) -> str:
    """Return the whole report as Markdown.

    Args:
        report: as in report.json.
        sections: the modules' own text, by name, in the order in which they appear.
        readme: where bench/README.md is, seen from the report.
        guest: lines about a guest with another kernel (`guested`).
    """
    lines = ["# Benchmarks", "", _MEANS.format(readme=readme), "", *_machine(report), ""]
    if report["quick"]:
        lines += ["**A quick run: few rounds, to see that everything works. Its times mean nothing.**", ""]
    lines += ["## Budgets", "", *_budgets(report), "", _WHY, ""]
    failed = [f"{name} failed: {reason}" for name, reason in report["failed"].items()]
    if gaps := [*failed, *left_out(report)]:
        lines += ["## Gaps", "", *(f"- {gap}" for gap in gaps), ""]
    lines += ["## Results", ""]
    for text in sections.values():
        lines += [text.strip("\n"), ""]
    return "\n".join([*lines, *guest])


def guested(report: Mapping[str, Any], sections: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines about what was measured in a guest whose kernel has flowtables."""
    yield from ("## On a kernel with flowtables, in a guest", "", _GUEST, "", *_machine(report), "")
    yield from (*_budgets(report, WITH_FLOWTABLES), "")
    for text in sections.values():
        yield from (text.strip("\n"), "")


def _machine(report: Mapping[str, Any]) -> Iterator[str]:
    before, after = report["load"]
    facts = {
        "polywan": f"{report['version']} {report['revision']}".strip(),
        "date": str(report["date"]),
        **report["environment"],
        "load average": f"{before:.2f} at the start, {after:.2f} at the end",
        "length of the run": f"{report['seconds']:.0f} s",
    }
    return table(["what", "value"], facts.items())


def _budgets(report: Mapping[str, Any], budgets: Iterable[Budget] = BUDGETS) -> Iterator[str]:
    rows = [
        (
            f"{budget.what} {budget.bound}",
            verdict.measured,
            "not judged" if report["quick"] and budget.timed and verdict.met is not None else verdict.text,
        )
        for budget, verdict in judged(report["results"], budgets)
    ]
    return table(["budget", "measured", "met"], rows)
