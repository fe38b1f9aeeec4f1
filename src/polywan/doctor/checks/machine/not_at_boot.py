"""polywan has a file, and does not run, or not after the next start of the box."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.doctor.box import Box
from polywan.doctor.facts.machine import Process, Unit

_SESSIONS: Final = ("/user.slice/",)


def check(box: Box) -> Iterator[Finding]:
    """Find a daemon that is not there now, or will not be."""
    machine = box.machine
    unit, daemon = machine.unit, machine.daemon
    configured = box.config is not None or bool(box.config_faults)
    if daemon is None and configured:
        yield _not_running(box)
    if unit is not None and not unit.enabled and (configured or daemon is not None):
        yield _not_enabled(unit)
    elif daemon is not None and machine.systemd and daemon.group.startswith(_SESSIONS):
        yield _by_hand(daemon, unit)


def _not_running(box: Box) -> Finding:
    unit = box.machine.unit
    elsewhere = [f"process {pid} runs polywan in another network namespace" for pid in box.machine.elsewhere]
    start = unit is not None and not unit.masked and not box.config_faults
    how = "start it: systemctl start polywan" if start else "start it: polywan run, as root, from what starts this box"
    if box.config_faults:
        how = "correct the file first (check config-faults), then start it"
    return Finding(
        check="not-at-boot",
        severity="warning",
        what=f"{box.config_path} is there, and no daemon of polywan runs in this network namespace",
        evidence=("`polywan status` finds none", *elsewhere),
        consequence="a link that fails is not noticed; what a former daemon has set up goes on as it was",
        fix=Fix(how=how, steps=(Step(command=("systemctl", "start", "polywan")),) if start else ()),
    )


def _not_enabled(unit: Unit) -> Finding:
    found = f"{unit.path} leads to /dev/null" if unit.masked else f"{unit.path} is there, and no target wants it"
    words = ("unmask", "enable") if unit.masked else ("enable",)
    return Finding(
        check="not-at-boot",
        severity="warning",
        what=f"systemd does not start polywan at boot: its unit is {'masked' if unit.masked else 'not enabled'}",
        evidence=(found, "`systemctl is-enabled polywan` says so, too"),
        consequence="after a restart of the box nothing is balanced, and nothing fails over",
        fix=Fix(
            how="have it started at boot",
            steps=tuple(Step(command=("systemctl", word, "polywan")) for word in words),
        ),
    )


def _by_hand(daemon: Process, unit: Unit | None) -> Finding:
    return Finding(
        check="not-at-boot",
        severity="warning",
        what=f"the daemon (pid {daemon.pid}) was started by hand, in a session of a user",
        evidence=(f"/proc/{daemon.pid}/cgroup: {daemon.group}",),
        consequence="it may end with that session, and does not start again when it fails",
        fix=Fix(
            how=f"end it and run `systemctl start polywan` ({unit.path})"
            if unit is not None
            else "install the unit of polywan, end the daemon, and run `systemctl enable --now polywan`"
        ),
    )
