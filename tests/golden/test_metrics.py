"""The guide's table of metrics is made from the code.

``pytest tests/golden --update-golden`` writes it anew; read the difference before you commit it: a metric is never
renamed, and keeps its labels.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from polywan.core.metrics.exposition import METRICS

GUIDE = Path(__file__).parents[2] / "docs/guide/metrics.md"
BEGIN, END = "<!-- made from the code: pytest tests/golden --update-golden -->\n", "<!-- end -->"


def table() -> str:
    rows = [
        f"| `{metric.sample}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | labels | value |", "|---|---|---|---|", *rows, ""])


def test_the_guide_lists_every_metric(request: pytest.FixtureRequest) -> None:
    before, rest = GUIDE.read_text(encoding="utf-8").split(BEGIN)
    listed, after = rest.split(END)
    if request.config.getoption("--update-golden"):
        GUIDE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")
        listed = table()
    assert listed == table(), f"{GUIDE} differs; see --update-golden"
