"""Networks behind this box: links with hosts, and no way to the Internet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from polywan.core.net import Family, IPInterface, IPNetwork
from polywan.core.world.observed import Link, Observed

_INNER: Final = re.compile(
    r"docker\d+|br-[0-9a-f]{12}|(virbr|lxcbr|lxdbr|incusbr|podman|cni|nerdctl)\d+|cni-.*|kube-.*"
)
"""Bridges of containers and virtual machines: who makes them sees to forwarding and to the chains for them."""

_LONGEST: Final = {Family.V4: 30, Family.V6: 64}
"""Longest prefix of a network that has room for hosts."""


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
        if observed.defaults_of(link.name, family) or is_inner(link):
            continue
        own = (ip for ip in observed.addresses_of(link.name, family) if ip.network.prefixlen <= _LONGEST[family])
        if (first := next(own, None)) is not None:
            yield Lan(link.name, first.network, first)


def is_inner(link: Link) -> bool:
    """Tell whether it is a bridge of containers or virtual machines, by its name."""
    return _INNER.fullmatch(link.name) is not None
