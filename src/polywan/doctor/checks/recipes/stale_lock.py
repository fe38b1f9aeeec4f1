"""A lock file of a script that ended without removing it: the next script waits for it for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.words import lasted
from polywan.doctor.box import Box

OLD: Final = 300.0
"""Seconds after which no script of a link is still at work."""


def check(box: Box) -> Iterator[Finding]:
    """Find lock files that scripts speak of, that are old, and that no process holds."""
    for lock in box.locks:
        age = box.now - lock.since
        if lock.held or age < OLD:
            continue
        yield Finding(
            check="stale-lock",
            severity="fault" if lock.waited_for else "warning",
            what=f"lock file {lock.path} was left behind by a script",
            evidence=(f"{lock.script}: {lock.line}", f"it is {lasted(age)} old, and no process has a lock on it"),
            consequence="the script waits for it for ever, or does nothing: routes are not put back after a redial",
            fix=Fix(
                how="remove it, and use flock(1) in the script: the kernel releases such a lock when the script ends",
                steps=(Step(command=("rm", "-f", lock.path)),),
            ),
        )
