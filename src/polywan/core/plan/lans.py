"""Networks behind this box: links with hosts, and no way to the Internet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from polywan.core.detection.kinds import address_with_hosts, is_of_containers
from polywan.core.net import Family, IPInterface, IPNetwork
from polywan.core.world.observed import Observed


class Lan(NamedTuple):
    """A network behind this box; `own` is the box's address there."""

    device: str
    network: IPNetwork
    own: IPInterface

    def __str__(self) -> str:
        return f"{self.device} ({self.network})"


def lans(observed: Observed, uplinks: Collection[str], family: Family, *, tunnels: bool = False) -> Iterator[Lan]:
    """Yield the networks behind this box, one for each link.

    Args:
        observed: the world.
        uplinks: devices that lead to the Internet.
        family: of the networks.
        tunnels: point-to-point links count as well, such as the device of a VPN's server.
    """
    for link in sorted(observed.links.values(), key=lambda link: link.index):
        if not link.usable or link.name in {"lo", *uplinks} or link.master or (link.point_to_point and not tunnels):
            continue
        if observed.defaults_of(link.name, family) or is_of_containers(link):
            continue
        if (own := address_with_hosts(link, observed, family)) is not None:
            yield Lan(link.name, own.network, own)
