"""The clock shows a time that is over, as on a box without a battery that has not reached a time server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box

_WRITTEN: Final = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""No clock that is right shows an earlier time to this program."""
_SLACK: Final = 86400.0


def check(box: Box) -> Iterator[Finding]:
    """Compare the clock with times that are known to be over."""
    confirmed = box.machine.clock.confirmed
    # 0 is a box whose clock was not read.
    if box.now and box.now < max(_WRITTEN, confirmed - _SLACK):
        yield _finding(box)


def _finding(box: Box) -> Finding:
    clock = box.machine.clock
    known = f"this version of polywan is of {_day(_WRITTEN)}"
    if clock.confirmed - _SLACK > box.now:
        known = f"a time service confirmed {_day(clock.confirmed)} before (/var/lib/systemd/timesync/clock)"
    evidence = [f"the clock shows {_day(box.now)}, and {known}"]
    if clock.synchronised is not None:
        service = "has" if clock.synchronised else "has not"
        evidence.append(f"a time service {service} set it (timedatectl, NTPSynchronized)")
    return Finding(
        check="clock-unset",
        severity="fault",
        what=f"the clock is wrong: it shows {_day(box.now)}",
        evidence=tuple(evidence),
        consequence="certificates count as not yet valid, so that HTTPS checks and VPNs fail; "
        "`time` rules, the journal and logs are of another day",
        fix=Fix(
            how="start a time service (systemd-timesyncd, chrony) that reaches its servers by any of the links, or set "
            "the clock once: date -s 'YYYY-MM-DD HH:MM'; without a battery, the box needs it at each start"
        ),
    )


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
