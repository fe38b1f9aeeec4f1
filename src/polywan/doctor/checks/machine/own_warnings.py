"""What polywan itself warns of, but for what other checks find."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box


def check(box: Box) -> Iterator[Finding]:
    """Repeat each of its sentences; advice is what follows the last semicolon in those about the file on this box."""
    for text in box.warnings.standing:
        what, _, advice = text.rpartition("; ")
        yield _finding(box, what or text, Fix(how=advice) if what else None)
    for text in box.warnings.passing:
        yield _finding(box, text, None)


def _finding(box: Box, what: str, fix: Fix | None) -> Finding:
    running = box.status is not None
    return Finding(
        check="polywan-warnings",
        severity="warning",
        what=what,
        evidence=(f"`{'polywan status' if running else 'polywan plan'}` warns of it",),
        consequence="polywan does not do all that its configuration asks for"
        if running
        else "polywan will not do all that its configuration asks for",
        fix=fix,
    )
