"""Large packets vanish on a line without a word, while small ones come back (RFC 2923).

A target may leave large requests unanswered by itself. So it counts only if several targets do, or if the same one
answers them by another line. A path that says "too big" is none: senders learn of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.net import Family
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.facts.line import PathSize

_PLAUSIBLE: Final = 1200
"""Bytes that every tunnel and dial-up line lets pass; below it a filter of the target is more likely."""

_LEAST_IPV6: Final = 1280
"""The kernel takes IPv6 from a device with a smaller MTU (RFC 8200, 5)."""

_FIXED_CLAMP: Final = re.compile(r"(?:--set-mss|maxseg size set) (\d+)")
_HEADERS: Final = {Family.V4: 40, Family.V6: 60}


def check(box: Box) -> Iterator[Finding]:
    """Find devices by which full-sized packets get no answer."""
    lost: dict[str, list[PathSize]] = {}
    for size in box.line.sizes:
        if _is_lost(box, size) and not _known(box, size):
            lost.setdefault(size.egress.device, []).append(size)
    for device, sizes in lost.items():
        yield _finding(box, device, sizes)


def _is_lost(box: Box, size: PathSize) -> bool:
    if not size.alive or size.full or size.reported or not size.largest:
        return False
    elsewhere = {
        target for other in box.line.sizes if other.egress.device != size.egress.device for target in other.full
    }
    return bool(elsewhere & {*size.alive}) or (len(size.alive) > 1 and size.largest >= _PLAUSIBLE)


def _known(box: Box, size: PathSize) -> bool:
    """Tell whether somebody has seen to it already: by the routes' mtu, or by a fixed size of TCP's segments."""
    family, device = size.egress.family, size.egress.device
    defaults = [r for r in box.routes if r.default and r.family is family and device in {hop.device for hop in r.hops}]
    if defaults and all(0 < route.mtu <= size.largest for route in defaults):
        return True
    rules = (
        rule.text
        for table in box.firewall.tables
        if table.meets(family)
        for chain in table.chains
        for rule in chain.rules
    )
    clamped = [int(found[1]) for text in rules if (found := _FIXED_CLAMP.search(text))]
    return any(segment + _HEADERS[family] <= size.largest for segment in clamped)


def _finding(box: Box, device: str, sizes: list[PathSize]) -> Finding:
    fits = min(size.largest for size in sizes)
    evidence = [
        f"echo requests of {size.size} bytes by {device} to {listed([*map(str, size.alive)])}: no answer; "
        f"of {size.largest} bytes: answered"
        for size in sizes
    ]
    evidence.append(f"the MTU of {device} is {box.observed.links[device].mtu}, and no router says that it is too large")
    return Finding(
        check="mtu-black-hole",
        severity="fault",
        what=f"packets of more than {fits} bytes vanish on {device}",
        evidence=tuple(evidence),
        consequence=f"connections by {device} open and then stall: pages load partly, uploads and VPNs hang",
        fix=_fix(box, device, fits),
    )


def _fix(box: Box, device: str, fits: int) -> Fix:
    if fits < _LEAST_IPV6 and box.observed.addresses_of(device, Family.V6):
        return Fix(
            how=f"have the provider repair the line: IPv6 needs {_LEAST_IPV6} bytes, and {device} loses its IPv6 "
            f"addresses with a smaller MTU; for IPv4 alone, add `mtu {fits}` to the default route by {device}"
        )
    how = f"set the MTU of {device} to {fits}"
    if box.config is not None:
        how += ", to which polywan then fits TCP's segments (`clamp_mss`)"
    keep = (
        f"`mtu {fits}` and `mru {fits}` in the peer's file of pppd"
        if box.observed.links[device].point_to_point
        else f"`mtu {fits}` in /etc/network/interfaces, `MTUBytes={fits}` for systemd-networkd, or "
        f"`nmcli connection modify NAME 802-3-ethernet.mtu {fits}`"
    )
    step = Step(command=("ip", "link", "set", "dev", device, "mtu", str(fits)))
    return Fix(how=f"{how}; so that it survives a restart: {keep}", steps=(step,))
