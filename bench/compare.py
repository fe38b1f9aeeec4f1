"""Compare two versions by their reports.

Usage: python bench/compare.py OLD.json [OLD.json …] --with NEW.json [NEW.json …]

Give the report.json files of runs that took turns (old, new, new, old, …). Prints the median of each version over
its runs, and new/old: below 1 is less time, less memory, fewer packets hurt.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from report import table
from stats import median, spread


def numbers(found: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a result by its path; of a summary, the median alone."""
    if isinstance(found, bool):
        return
    if isinstance(found, int | float):
        yield path, float(found)
    elif isinstance(found, Mapping):
        if {"median", "runs"} <= found.keys():
            yield path, float(found["median"])
            return
        for key, value in found.items():
            yield from numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(found, Sequence) and not isinstance(found, str):
        for entry in found:
            if isinstance(entry, Mapping) and {"design", "kind", "uplinks", "ratio"} <= entry.keys():
                yield f"{path}.{entry['uplinks']}.{entry['design']}.{entry['kind']}.ratio", float(entry["ratio"])


def compared(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return rows for every number that all reports have: path, old, new, new/old."""
    sides = [[dict(numbers(report["results"])) for report in reports] for reports in (old, new)]
    shared = [path for path in sides[0][0] if all(path in each for side in sides for each in side)]
    rows = []
    for path in shared:
        before, after = ([each[path] for each in side] for side in sides)
        ratio = f"{median(after) / median(before):.2f}" if median(before) else "-"
        rows.append((path, _shown(before), _shown(after), ratio))
    return rows


def _shown(values: Sequence[float]) -> str:
    low, high = spread(values)
    return f"{median(values):.4g} ({low:.4g}..{high:.4g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", nargs="+", type=Path, help="report.json files of the old version")
    parser.add_argument("--with", dest="new", nargs="+", type=Path, required=True, help="those of the new version")
    value = parser.parse_args()
    old, new = ([json.loads(path.read_text(encoding="utf-8")) for path in paths] for paths in (value.old, value.new))
    print("\n".join(table(["number", "old", "new", "new/old"], compared(old, new))))


if __name__ == "__main__":
    main()
