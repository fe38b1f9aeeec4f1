"""Look at a machine with every check, and put what they find in order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polywan import __version__
from polywan.api.doctor import Diagnosis, Finding, NotChecked
from polywan.doctor.box import Box, Check

SCHEMA: Final = 1
ORDER: Final = ("fault", "warning", "note")
"""Severities, the worst first."""


def examine(box: Box, checks: Iterable[Check], seconds: float) -> Diagnosis:
    """Return what the checks find on a machine; one that fails is not made, and the others are.

    Args:
        box: the machine.
        checks: in the order in which findings of the same severity are told.
        seconds: how long it took to read the machine.
    """
    findings: list[Finding] = []
    skipped: list[NotChecked] = []
    made: list[str] = []
    for check in checks:
        if missing := [box.unread[name] for name in check.needs if name in box.unread]:
            skipped.append(NotChecked(check=check.name, reason="; ".join(dict.fromkeys(missing))))
            continue
        try:
            findings += check.look(box)
        except Exception as error:  # noqa: BLE001 - a machine that nobody thought of must not hide what is known
            skipped.append(NotChecked(check=check.name, reason=f"internal error ({type(error).__name__}: {error})"))
        else:
            made.append(check.name)
    findings.sort(key=lambda finding: ORDER.index(finding.severity))
    return Diagnosis(
        schema=SCHEMA,
        version=__version__,
        healthy=all(finding.severity == "note" for finding in findings),
        findings=tuple(findings),
        not_checked=tuple(skipped),
        checked=tuple(made),
        seconds=round(seconds, 3),
    )
