"""Two lines are in the same IPv4 network, which Linux does not tell apart by itself.

On one segment each device answers ARP for the addresses of both, so that packets arrive by the wrong one. That matters
where both are in use; a cable and a radio link to the same router are common, and one of them stands by. On two
segments nothing answers wrongly, but only one of the two is reached without naming the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.net import Family, IPNetwork
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import name_of, set_and_keep

_NAMES: Final = {"arp_ignore": 1, "arp_announce": 2}


def check(box: Box) -> Iterator[Finding]:
    """Find pairs of lines in one network that nobody has set up for that."""
    if box.status is not None:
        return
    devices = dict.fromkeys(egress.device for egress in box.sending(Family.V4) if _resolves(box, egress.device))
    used = {egress.device for egress in box.in_use(Family.V4)}
    for one, other in combinations(devices, 2):
        network = _shared(box, one, other)
        if network is None:
            continue
        if mac := _same_router(box, one, other):
            if {one, other} <= used and not (_set_up(box, one) and _set_up(box, other)):
                yield _one_segment(box, one, other, network, mac)
        elif _differ(box, one, other):
            yield _two_segments(one, other, network)


def _resolves(box: Box, device: str) -> bool:
    """Tell whether a device uses ARP, and the same tables as the rest of the box."""
    link = box.observed.links.get(device)
    if link is None or link.point_to_point:
        return False
    return not any(master.kind == "vrf" for master in box.observed.masters_of(link))


def _shared(box: Box, one: str, other: str) -> IPNetwork | None:
    first, second = (box.observed.addresses_of(device, Family.V4) for device in (one, other))
    networks = (a.network for a in first for b in second if a.network.overlaps(b.network))
    return next(networks, None)


def _macs(box: Box, device: str) -> dict[str, str]:
    known = (answer for answer in box.line.gateways if answer.egress.family is Family.V4 and answer.mac)
    return {str(answer.gateway): answer.mac for answer in known if answer.egress.device == device}


def _same_router(box: Box, one: str, other: str) -> str:
    """Return the hardware address of a gateway that both reach: they are on one segment."""
    first, second = _macs(box, one), _macs(box, other)
    return next((mac for gateway, mac in first.items() if second.get(gateway) == mac), "")


def _differ(box: Box, one: str, other: str) -> bool:
    first, second = _macs(box, one), _macs(box, other)
    return any(gateway in second and second[gateway] != mac for gateway, mac in first.items())


def _set_up(box: Box, device: str) -> bool:
    """The kernel takes the larger of a device's value and that of `all` (ip-sysctl)."""
    return all(_value(box, device, name) >= least for name, least in _NAMES.items())


def _value(box: Box, device: str, name: str) -> int:
    return max(box.setting(_path(each, name)) or 0 for each in ("all", device))


def _path(device: str, name: str) -> str:
    return f"net/ipv4/conf/{device}/{name}"


def _one_segment(box: Box, one: str, other: str, network: IPNetwork, mac: str) -> Finding:
    wanted = {_path(device, name): str(value) for device in (one, other) for name, value in _NAMES.items()}
    values = [
        f"{name_of(_path(device, name))} is {_value(box, device, name)} in effect"
        for device in (one, other)
        for name in _NAMES
    ]
    return Finding(
        check="same-network-twins",
        severity="warning",
        what=f"{one} and {other} are on one segment, {network}, and answer ARP for each other",
        evidence=(f"both reach the same gateway, {mac}", *values),
        consequence=f"what is sent to {other} may arrive by {one}: its rate is that of one line, and strict filters "
        "drop its packets",
        fix=Fix(how="have each device answer ARP for its own addresses only", steps=set_and_keep(wanted)),
    )


def _two_segments(one: str, other: str, network: IPNetwork) -> Finding:
    return Finding(
        check="same-network-twins",
        severity="note",
        what=f"the routers at {one} and {other} use the same network {network}",
        evidence=(f"their gateways have one address, and different hardware addresses by {one} and {other}",),
        consequence=f"the router at {other} and its network are not reached unless a program names the device {other}",
        fix=Fix(how=f"change the network of the router at {other} to one that this box does not have yet"),
    )
