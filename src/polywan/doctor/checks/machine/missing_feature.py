"""The kernel or the system lacks something that this box needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box

_PACKAGES: Final = {"ip": "iproute2", "nft": "nftables", "conntrack": "conntrack", "pppd": "ppp"}
_USEFUL: Final = {
    "ip": "shows routes and policy rules",
    "nft": "shows polywan's table and those of other firewalls",
    "conntrack": "shows connections with their marks",
}


def check(box: Box) -> Iterator[Finding]:
    """Find what polywan cannot do without, what dials a missing link, and what helps to look at the rest."""
    if box.lacking:
        yield _of_kernel(box)
    if box.config is None:
        return
    dialled = [u.interface for u in box.config.uplinks.values() if u.interface.startswith("ppp")]
    # Without links nothing was read of them.
    absent = [device for device in dialled if box.observed.links and device not in box.observed.links]
    if absent and "pppd" in box.machine.absent:
        yield _pppd(absent)
    if useful := [tool for tool in _USEFUL if tool in box.machine.absent]:
        yield _tools(useful)


def _of_kernel(box: Box) -> Finding:
    release = box.machine.release
    evidence = [f"missing: {text}" for text in box.lacking]
    how = "install what is named, or run a kernel that has these options; those of distributions do"
    if not box.machine.modules:
        evidence.append(f"/lib/modules/{release} is not there, and other versions are")
        how = f"reboot: the running kernel {release} was replaced by an update, and no longer finds its modules"
    return Finding(
        check="missing-feature",
        severity="fault",
        what="this box lacks what polywan needs",
        evidence=tuple(evidence),
        consequence="polywan does not start, or refuses the configuration",
        fix=Fix(how=how),
    )


def _pppd(devices: list[str]) -> Finding:
    return Finding(
        check="missing-feature",
        severity="fault",
        what=f"{' and '.join(devices)} {'is' if len(devices) == 1 else 'are'} not there, and pppd(8) is not installed",
        evidence=("`pppd` is not found", *(f"`ip link show dev {device}` finds no device" for device in devices)),
        consequence="these uplinks cannot be dialled, and stay `missing`",
        fix=Fix(how="install the package ppp, which also brings the plugin for PPPoE"),
    )


def _tools(tools: list[str]) -> Finding:
    packages = " ".join(_PACKAGES[tool] for tool in tools)
    return Finding(
        check="missing-feature",
        severity="note",
        what=f"{', '.join(tools)} not installed",
        evidence=tuple(f"`{tool}` is not found; it {_USEFUL[tool]}" for tool in tools),
        consequence="polywan works without; faults are harder to find",
        fix=Fix(how=f"on Debian and Ubuntu: apt install {packages}"),
    )
