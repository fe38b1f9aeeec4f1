"""The connection tracking table is nearly full, or was: the kernel then drops new connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.plan.cautions import FULL_TABLE, TRACKING_COUNT, TRACKING_LIMIT
from polywan.core.words import counted
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import TRACKING_AT_BOOT, set_and_keep

_BYTES: Final = 320
"""Memory of one entry on a 64 bit kernel (/proc/slabinfo, nf_conntrack)."""
_LIMIT_NAME: Final = TRACKING_LIMIT.replace("/", ".")


def check(box: Box) -> Iterator[Finding]:
    """Compare what is in the table with its size, and see whether entries had to make room since boot."""
    count, most = box.setting(TRACKING_COUNT), box.setting(TRACKING_LIMIT)
    # 0 is a table without a limit.
    if count is None or not most:
        return
    begin, _ = FULL_TABLE
    if count >= most * begin:
        yield _finding(box, count, most, full=count >= most)
    elif box.machine.tracking.get("early_drop", 0):
        yield _was_full(box, count, most)


def _evidence(box: Box, count: int, most: int) -> tuple[str, ...]:
    sums = box.machine.tracking
    shown = [f"{name} = {sums[name]}" for name in ("drop", "early_drop", "insert_failed") if sums.get(name)]
    numbers = f"{TRACKING_COUNT.replace('/', '.')} = {count}, {_LIMIT_NAME} = {most}"
    return (numbers, *([f"since boot, in the sum of all CPUs (conntrack -S): {', '.join(shown)}"] if shown else []))


def _finding(box: Box, count: int, most: int, *, full: bool) -> Finding:
    return Finding(
        check="conntrack-full",
        severity="fault" if full else "warning",
        what=f"the connection tracking table is {'full' if full else 'nearly full'}: {count} of {most} entries",
        evidence=_evidence(box, count, most),
        consequence="new connections fail at random, by every link, while old ones go on"
        if full
        else "new connections fail once it is full",
        fix=_fix(box, most, "`polywan flows` or `conntrack -L` shows the clients that open so many"),
    )


def _was_full(box: Box, count: int, most: int) -> Finding:
    dropped = counted(box.machine.tracking["early_drop"], "connection")
    return Finding(
        check="conntrack-full",
        severity="note",
        what=f"the connection tracking table was full since boot, and is not now: {count} of {most} entries",
        evidence=_evidence(box, count, most),
        consequence=f"the kernel forgot {dropped} that had no answer yet, to make room",
        fix=_fix(box, most, "if it happens again"),
    )


def _fix(box: Box, most: int, hint: str) -> Fix:
    wanted = 2 * most
    how = f"raise {_LIMIT_NAME} to {wanted} ({wanted * _BYTES // 2**20} MiB when full); {hint}"
    if box.machine.tracking_fixed:
        return Fix(how=f"{how}; only the host of this container or network namespace can do so")
    return Fix(how=how, steps=(*set_and_keep({TRACKING_LIMIT: str(wanted)}), TRACKING_AT_BOOT))
