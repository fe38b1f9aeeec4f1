"""Judge what pip-audit found of the packages in the lock files: `scripts/audit` runs this.

The verdict is a function of what pip-audit printed. Only a service that does not answer is no failure: it says nothing
of the packages. pip-audit itself ends well when the service knows none of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

ACCEPTED: Final = "accepted-advisories.toml"
"""In packaging/: advisories that are accepted, each with its package, reason and last day."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_UNREACHABLE: Final = re.compile(r"^requests\.exceptions\.|Could not connect to ", re.MULTILINE)


class Outcome(Enum):
    """Whether the packages may be used."""

    GOOD = "good"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and the lines that tell it."""

    outcome: Outcome
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An advisory that is known and does no harm here.

    Attributes:
        package: the package it is about.
        reason: why it does no harm.
        until: the last day on which it counts.
    """

    package: str
    reason: str
    until: date


def acceptances(text: str) -> dict[str, Acceptance]:
    """Return the accepted advisories of a file, by their id.

    Raises:
        ValueError: the file is not as it should be.
    """
    found = {}
    for name, entry in tomllib.loads(text).get("advisories", {}).items():
        try:
            found[name] = Acceptance(**entry)
        except TypeError as error:
            raise ValueError(f'advisories."{name}": expected package, reason and until') from error
        if not isinstance(found[name].until, date) or not found[name].reason:
            raise ValueError(f'advisories."{name}": expected a reason, and a date such as 2027-01-31 in until')
    return found


def judge(status: int, output: str, complaints: str, accepted: Mapping[str, Acceptance], today: date) -> Verdict:
    """Return the verdict on a run of pip-audit.

    Args:
        status: its exit status.
        output: its standard output, JSON when it came to an end.
        complaints: its standard error.
        accepted: by id of the advisory.
        today: by which acceptances end.
    """
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return _without_report(status, complaints)
    unknown = sorted({each["name"] for each in packages if "skip_reason" in each})
    if packages and len(unknown) == len({each["name"] for each in packages}):
        return Verdict(Outcome.SKIPPED, ("SKIPPED: the advisory service does not answer for any package",))
    lines = [f"{name}: the advisory service does not know this package" for name in unknown]
    lines += _vulnerable(packages, accepted, today)
    if lines or not packages:
        return Verdict(Outcome.FAILED, tuple(lines) or ("pip-audit looked at no package",))
    notes = (f"{i}: accepted, but not found any more: remove it" for i in sorted(accepted.keys() - _ids(packages)))
    return Verdict(Outcome.GOOD, (f"{len(_versions(packages))} packages without a vulnerability", *notes))


def _without_report(status: int, complaints: str) -> Verdict:
    if status and _UNREACHABLE.search(complaints):
        return Verdict(Outcome.SKIPPED, ("SKIPPED: the advisory service does not answer",))
    last = complaints.strip().rpartition("\n")[2]
    return Verdict(Outcome.FAILED, (f"pip-audit ended with {status} and no report: {last}",))


def _versions(packages: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    return {(each["name"], each["version"]) for each in packages}


def _names(advisory: Mapping[str, Any]) -> set[str]:
    return {advisory["id"], *advisory["aliases"]}


def _ids(packages: Sequence[Mapping[str, Any]]) -> set[str]:
    return {name for each in packages for advisory in each.get("vulns", ()) for name in _names(advisory)}


def _shown(advisory: Mapping[str, Any]) -> str:
    """Return the first line of its description, which anybody may have written, fit for a terminal."""
    first = str(advisory["description"]).strip().partition("\n")[0][:200]
    return "".join(each if each.isprintable() else "?" for each in first)


def _vulnerable(
    packages: Sequence[Mapping[str, Any]], accepted: Mapping[str, Acceptance], today: date
) -> dict[str, None]:
    """Return a line for each vulnerability that is not accepted, in order and each once."""
    found: dict[str, None] = {}
    for each in packages:
        for advisory in each.get("vulns", ()):
            known = [accepted[name] for name in sorted(_names(advisory)) if name in accepted]
            mine = [entry for entry in known if entry.package == each["name"]]
            if any(today <= entry.until for entry in mine):
                continue
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            line = f"{each['name']} {each['version']}: {advisory['id']}, fixed in {fixed}: {_shown(advisory)}"
            found[line + (f" (accepted until {mine[0].until})" if mine else "")] = None
    return found


def main(locks: Sequence[str]) -> int:
    """Run the pip-audit of this environment over lock files, print the verdict, and return the exit status."""
    auditor = [str(Path(sys.executable).parent / "pip-audit"), "--disable-pip", "--require-hashes"]
    files = [word for lock in locks for word in ("--requirement", lock)]
    argv = [*auditor, "--format", "json", "--progress-spinner", "off", *files]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    accepted = acceptances((_ROOT / "packaging" / ACCEPTED).read_text(encoding="utf-8"))
    verdict = judge(ran.returncode, ran.stdout, ran.stderr, accepted, datetime.now(UTC).date())
    for line in verdict.lines:
        print(f"polywan: audit: {line}", file=sys.stderr)
    return verdict.outcome is Outcome.FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
