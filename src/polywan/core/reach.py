"""Find out how each uplink can be used in each family: device, next hop, source, or why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import TypeAlias

from polywan.config import Config, Uplink
from polywan.core.allocate import Numbers
from polywan.core.nat6 import prefixes_of
from polywan.core.net import FAMILIES, Family, IPAddress, IPInterface
from polywan.core.observed import Observed

UplinkFamily: TypeAlias = tuple[str, Family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A usable way out: `via` is None on point-to-point links.

    Attributes:
        addresses: of the link; where it has none of its own, those of this box within `prefixes`.
        prefixes: IPv6 prefixes that the provider routes to this box.
        source: what the box should prefer as its source, when the link itself does not tell.
    """

    link: str
    via: IPAddress | None
    onlink: bool
    addresses: tuple[IPAddress, ...]
    prefixes: tuple[IPv6Network, ...] = ()
    source: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPath:
    """Why there is no way out; `path` is how it would go if the carrier came back, when that is known."""

    reason: str
    missing: bool = False
    path: Path | None = None


Reach: TypeAlias = Path | NoPath


def reach(
    config: Config, observed: Observed, remembered: Mapping[UplinkFamily, IPAddress]
) -> dict[UplinkFamily, Reach]:
    """Judge every uplink, disabled ones too, in every family that it has, by the link layer and the routes alone.

    A family is an uplink's when the file says so, when a gateway for it is known or was known before, or
    when the link has an address of it, or an IPv6 prefix is routed to this box by it; an uplink whose link is
    missing is judged in every family known so far.
    """
    result: dict[UplinkFamily, Reach] = {}
    for name, uplink in config.uplinks.items():
        for family in FAMILIES:
            if _has_family(name, uplink, family, observed, remembered):
                result[name, family] = _judge(name, uplink, family, observed, remembered)
    return result


def unbound_links(
    observed: Observed, ways: Mapping[UplinkFamily, Reach], numbers: Mapping[str, Numbers], family: Family
) -> frozenset[str]:
    """Links by which the first route of a socket leaves that is bound to nothing.

    They are those of main's best default. Where main has none that serves every source, our fallback table leads,
    by the uplink with the lowest number whose link is up.
    """
    if main := observed.main_default_links(family):
        return main
    usable = [(numbers[name].id, way.link) for (name, f), way in ways.items() if f is family and isinstance(way, Path)]
    return frozenset(link for _, link in sorted(usable)[:1])


def _has_family(
    name: str,
    uplink: Uplink,
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> bool:
    if uplink.families is not None:
        return family.nfproto in uplink.families
    if (name, family) in remembered or _configured_gateway(uplink, family) is not None:
        return True
    if family is Family.V4:
        # A link without any address yet is expected to get an IPv4 one; IPv6 shows itself by its address.
        return bool(observed.addresses_of(uplink.interface, family)) or not observed.addresses_of(
            uplink.interface, Family.V6
        )
    return bool(observed.addresses_of(uplink.interface, family) or prefixes_of(uplink, observed))


def _judge(
    name: str,
    uplink: Uplink,
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> Reach:
    link = observed.links.get(uplink.interface)
    if link is None:
        return NoPath(reason=f"interface {uplink.interface} does not exist", missing=True)
    addresses = observed.addresses_of(link.name, family)
    prefixes = prefixes_of(uplink, observed) if family is Family.V6 else ()
    path = None
    if addresses or prefixes:
        if link.point_to_point:
            path = _path(uplink, None, addresses, prefixes, observed)
        elif (via := _gateway(name, uplink, family, observed, remembered)) is not None:
            path = _path(uplink, via, addresses, prefixes, observed)
    if not link.up:
        return NoPath(reason="interface is down", path=None)
    if not link.carrier:
        return NoPath(reason="no carrier", path=path)
    if not addresses and not prefixes:
        return NoPath(reason=f"no {_word(family)} address yet")
    return path or NoPath(reason=f"{_word(family)} gateway not known yet: no default route by {link.name} in any table")


def _path(
    uplink: Uplink,
    via: IPAddress | None,
    addresses: tuple[IPInterface, ...],
    prefixes: tuple[IPv6Network, ...],
    observed: Observed,
) -> Path:
    covered = via is None or via.is_link_local or any(via in a.network for a in addresses)
    # A provider that delegates a prefix may leave the link itself without an address (RFC 7084, WAA-7).
    elsewhere = observed.within(prefixes) if not addresses else ()
    return Path(
        link=uplink.interface,
        via=via,
        onlink=not covered,
        addresses=tuple(a.ip for a in addresses) or elsewhere,
        prefixes=prefixes,
        source=next(iter(elsewhere), None),
    )


def _configured_gateway(uplink: Uplink, family: Family) -> IPAddress | None:
    gateway = uplink.gateway if family is Family.V4 else uplink.gateway6
    return None if gateway == "auto" else gateway


def _gateway(
    name: str,
    uplink: Uplink,
    family: Family,
    observed: Observed,
    remembered: Mapping[UplinkFamily, IPAddress],
) -> IPAddress | None:
    if (configured := _configured_gateway(uplink, family)) is not None:
        return configured
    for route in observed.defaults_of(uplink.interface, family):
        if route.via is not None:
            return route.via
    # The kernel forgets static default routes when a link goes down; the gateway is still the same one
    # as long as it lies in a network of the link.
    known = remembered.get((name, family))
    if known is not None and (
        known.is_link_local or any(known in a.network for a in observed.addresses_of(uplink.interface, family))
    ):
        return known
    return None


def _word(family: Family) -> str:
    return "IPv4" if family is Family.V4 else "IPv6"
