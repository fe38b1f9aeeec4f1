"""Rules with `time` count by a zone that is not the one that was meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box

_UTC: Final = frozenset(["UTC", "Etc/UTC", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal", "UCT", "Etc/UCT"])


def check(box: Box) -> Iterator[Finding]:
    """Compare the zones of the daemon and the system; without `time` rules nothing depends on them."""
    rules = box.config.rules if box.config is not None else ()
    numbers = [str(n) for n, rule in enumerate(rules, 1) if rule.time or rule.not_.time]
    if not numbers:
        return
    clock, daemon = box.machine.clock, box.machine.daemon
    which = f"rule{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    if daemon is not None and daemon.zone and clock.local and not _same(daemon.zone.removeprefix(":"), clock.local):
        yield _of_daemon(daemon.pid, daemon.zone, clock.local, which)
    elif clock.local and clock.named and not _same(clock.local, clock.named):
        yield _of_files(clock.local, clock.named, which)
    elif clock.local in _UTC:
        yield _of_utc(clock.local, which)


def _same(one: str, other: str) -> bool:
    return one == other or {one, other} <= _UTC


def _of_daemon(pid: int, zone: str, local: str, which: str) -> Finding:
    return Finding(
        check="time-zone",
        severity="warning",
        what=f"the daemon runs with TZ={zone}, and the system's time zone is {local}",
        evidence=(f"/proc/{pid}/environ has TZ={zone}", f"/etc/localtime leads to {local}"),
        consequence=f"{which} with `time` begins and ends by another clock than the one that `date` shows",
        fix=Fix(how="take TZ out of what starts the daemon (systemctl cat polywan), and restart it"),
    )


def _of_files(local: str, named: str, which: str) -> Finding:
    return Finding(
        check="time-zone",
        severity="warning",
        what=f"the time zone is {local}, and /etc/timezone says {named}",
        evidence=(f"/etc/localtime leads to {local}, which counts", f"/etc/timezone says {named}"),
        consequence=f"{which} with `time` counts in {local}",
        fix=Fix(how=f"if {named} is meant: timedatectl set-timezone {named}; otherwise correct /etc/timezone"),
    )


def _of_utc(local: str, which: str) -> Finding:
    return Finding(
        check="time-zone",
        severity="note",
        what=f"the time zone is {local}, and {which} depends on the time of day",
        evidence=(f"/etc/localtime leads to {local}",),
        consequence="hours in `time` are those of UTC, in summer and winter",
        fix=Fix(how="if local time is meant: timedatectl set-timezone REGION/CITY"),
    )
