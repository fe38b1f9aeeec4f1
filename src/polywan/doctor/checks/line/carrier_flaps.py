"""A link has lost its carrier again and again during the last day, by polywan's journal."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.api.events import LinkEvent
from polywan.doctor.box import Box

MANY_LOSSES: Final = 4
"""Losses in a day that are no accident: somebody who plugs a cable in elsewhere makes one or two."""

_SERVING: Final = ("up", "degraded", "draining", "drained")
_SHOWN: Final = 3


def check(box: Box) -> Iterator[Finding]:
    """Find uplinks that lost their link often."""
    lost: dict[str, list[LinkEvent]] = {}
    for event in box.events:
        if event.event == "state" and event.previous_state in _SERVING and _lost_its_link(event):
            lost.setdefault(event.uplink, []).append(event)
    for uplink, events in lost.items():
        if len(events) >= MANY_LOSSES:
            yield _finding(uplink, events)


def _lost_its_link(event: LinkEvent) -> bool:
    return event.state == "missing" or (event.state == "down" and "no carrier" in event.reason)


def _finding(uplink: str, events: list[LinkEvent]) -> Finding:
    device = events[-1].interface
    typed = quote(device)
    lasted = [event.lasted_s for event in events if event.lasted_s is not None]
    evidence = [f"`polywan events {uplink}`: {event.time}: {event.reason}" for event in events[-_SHOWN:]]
    if lasted:
        evidence.append(f"the longest time in between was {max(lasted) / 60:.0f} min")
    return Finding(
        check="carrier-flaps",
        severity="warning",
        what=f"uplink {uplink} ({device}) lost its link {len(events)} times within a day",
        evidence=tuple(evidence),
        consequence=f"each time the connections by {uplink} break, and it serves again only after its hold-down",
        fix=Fix(
            how=f"exchange the cable of {device}, and see that the modem does not lose power; where `ethtool "
            f"--show-eee {typed}` shows power saving, try without it (`ethtool --set-eee {typed} eee off`)"
        ),
    )
