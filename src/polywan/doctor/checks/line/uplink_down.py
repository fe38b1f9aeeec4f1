"""An uplink that the running daemon does not use, or not fully, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.api.status import UplinkStatus
from polywan.doctor.box import Box

_SEVERITIES: Final = {"down": "fault", "missing": "fault", "degraded": "warning"}


def check(box: Box) -> Iterator[Finding]:
    """Repeat what `polywan status` says of uplinks that are not up."""
    uplinks = box.status.uplinks if box.status is not None else ()
    serving = any(uplink.state in ("up", "degraded", "draining") for uplink in uplinks)
    for uplink in uplinks:
        if uplink.state in _SEVERITIES:
            yield _finding(uplink, serving=serving)


def _finding(uplink: UplinkStatus, *, serving: bool) -> Finding:
    name = uplink.name
    broken = (f"{layer}: {known.detail}" for layer, known in uplink.layers.items() if known.state == "broken")
    lost = "its connections go by the others" if serving else "no uplink is up: connections keep the last choice"
    return Finding(
        check="uplink-down",
        severity=_SEVERITIES[uplink.state],
        what=f"uplink {name} ({uplink.interface}) is {uplink.state}: {uplink.reason}",
        evidence=(f"`polywan status {name}` says so", *broken),
        consequence=lost if uplink.state != "degraded" else "connections by it may be slow, or fail in one family",
        fix=Fix(how=f"`polywan uplink test {name}` tries each layer; `polywan events --uplink {name}`: since when"),
    )
