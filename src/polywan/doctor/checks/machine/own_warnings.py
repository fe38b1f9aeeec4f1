"""What polywan itself warns of, but for what other checks find."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box


def check(box: Box) -> Iterator[Finding]:
    """Repeat each of its sentences; advice is what follows the last semicolon in them."""
    running = box.status is not None
    source = "polywan status" if running else "polywan plan"
    for text in box.conflicts:
        what, _, advice = text.rpartition("; ")
        yield Finding(
            check="polywan-warnings",
            severity="warning",
            what=what or text,
            evidence=(f"`{source}` warns of it",),
            consequence="polywan does not do all that its configuration asks for"
            if running
            else "polywan will not do all that its configuration asks for",
            fix=Fix(how=advice) if what else None,
        )
