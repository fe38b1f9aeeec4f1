"""The file has mistakes: a daemon does not start with it, and one that runs does not take it."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box


def check(box: Box) -> Iterator[Finding]:
    """Repeat what is wrong with the file."""
    if not box.config_faults:
        return
    running = box.status is not None
    yield Finding(
        check="config-faults",
        severity="fault",
        what=f"{box.config_path} is not a valid configuration",
        evidence=box.config_faults,
        consequence="the daemon goes on with what it read before, and does not start again once it has ended"
        if running
        else "polywan does not start with it",
        fix=Fix(
            how="correct these lines; `polywan check` shows them again, and `polywan reload` puts the file in force"
        ),
    )
