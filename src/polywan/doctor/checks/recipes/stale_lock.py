"""A lock file that a script left behind: the scripts that wait for it never go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.words import lasted, listed
from polywan.doctor.box import Box
from polywan.doctor.facts.locks import Lock

_AT_WORK: Final = 60.0
"""Seconds that a script may take."""


def check(box: Box) -> Iterator[Finding]:
    """Find locks that no process holds and that are older than a script runs, or than the system."""
    for lock in box.locks:
        if not lock.held and (lock.before_boot or lock.age > _AT_WORK):
            yield _finding(lock)


def _finding(lock: Lock) -> Finding:
    since = "is from before the system started" if lock.before_boot else f"is {lasted(lock.age)} old"
    waits = lock.name.where.path
    return Finding(
        check="stale-lock",
        severity="fault",
        what=f"the lock file {lock.path} was left behind, and {waits} waits for it",
        evidence=(
            f"{lock.path} {since}, and neither {listed(lock.name.makers)} nor a process that has it open runs",
            str(lock.name.where),
        ),
        consequence="the next time that a line goes up or down, the script hangs or gives up, "
        "and routes stay as they were",
        fix=Fix(
            how="remove it; flock(1) makes locks that end with their process: `exec 9> FILE; flock 9` in the script",
            steps=(Step(command=(*(("rmdir",) if lock.folder else ("rm", "-f")), lock.path)),),
        ),
    )
