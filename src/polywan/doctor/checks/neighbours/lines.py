"""By which links a box is connected to the Internet."""

from __future__ import annotations

from polywan.core.detection.kinds import TUNNELS
from polywan.core.net import Family
from polywan.doctor.box import Box


def lines(box: Box, family: Family | None = None) -> frozenset[str]:
    """Return the devices of the uplinks, or, without a configuration, those by which routes lead out; no tunnels."""
    if box.config is not None:
        return frozenset(uplink.interface for uplink in box.config.uplinks.values())
    egresses = box.egresses if family is None else box.sending(family)
    return frozenset(egress.device for egress in egresses if not is_tunnel(box, egress.device))


def is_tunnel(box: Box, device: str) -> bool:
    """Tell whether a device's packets leave by another one."""
    link = box.observed.links.get(device)
    return link is not None and link.kind in TUNNELS


def is_multi_wan(box: Box, family: Family | None = None) -> bool:
    """Tell whether the box has several lines, or is to have: a configuration counts with one, too."""
    return box.config is not None or len(lines(box, family)) > 1
