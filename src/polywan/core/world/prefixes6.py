"""IPv6 prefixes: which ones each uplink's provider routes to this box, and what an uplink does to a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Final, Literal, TypeAlias

from polywan.config import Uplink
from polywan.core.net import TABLE_MAIN, Family, family_of
from polywan.core.resolved import Resolved
from polywan.core.world.observed import DefaultRoute, Observed
from polywan.core.world.shared_device import own_addresses

Nat6Mode: TypeAlias = Literal["native", "prefix", "masquerade", "snat", "none"]
"""What an uplink does to IPv6 sources: native lets its own prefixes pass and nothing else, prefix exchanges the prefix
of all others (NPTv6, RFC 6296), masquerade and snat give one address to all, none touches nothing."""

SUBNET: Final = 64
"""Longest prefix of a link with hosts (RFC 4291, 2.5.1): what is longer is a single host or a link between two."""

Claims: TypeAlias = tuple[tuple[IPv6Network, tuple[str, ...]], ...]
"""Networks without overlap, each with the uplinks whose own it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One uplink as IPv6 sources see it.

    Attributes:
        steers: connections from its prefixes leave by it while it serves.
        prefixes: what its provider routes here, the preferred one first.
        own: addresses of its device.
        links: networks of its device's own link: no host inside can be reached there.
        alone: no other uplink has its device.
    """

    name: str
    device: str
    mode: Nat6Mode
    steers: bool
    prefixes: tuple[IPv6Network, ...]
    own: tuple[IPv6Address, ...]
    links: tuple[IPv6Network, ...]
    alone: bool = True

    def passes(self, source: IPv6Address) -> bool:
        """True when the source is the uplink's own."""
        return source in self.own or any(source in prefix for prefix in self.prefixes)


def prefixes_of(uplink: Uplink, observed: Observed, *, alone: bool = True) -> tuple[IPv6Network, ...]:
    """Return the prefixes that the uplink's provider routes to this box, the preferred one first.

    They are those of the file, else the sources of source-specific default routes by its device (ip-route(8), "from").
    A source on the device's own link is left out: its hosts are neighbours of the provider's router. Where the uplink
    does not have its device alone, nobody knows whose these routes are.
    """
    if uplink.families is not None and Family.V6.nfproto not in uplink.families:
        return ()
    if uplink.prefix6:
        return tuple(dict.fromkeys(p for p in uplink.prefix6 if isinstance(p, IPv6Network)))
    if uplink.interface not in observed.sourced or not alone:
        return ()
    return _delegated(observed.defaults_of(uplink.interface, Family.V6), _networks(uplink.interface, observed))


@lru_cache(maxsize=256)
def _delegated(routes: tuple[DefaultRoute, ...], links: tuple[IPv6Network, ...]) -> tuple[IPv6Network, ...]:
    seen = [
        (route.table != TABLE_MAIN, route.metric, route.source.prefixlen, route.source)
        for route in routes
        if isinstance(route.source, IPv6Network) and not route.source.is_link_local and not route.source.is_multicast
    ]
    found = dict.fromkeys(source for *_, source in sorted(seen))
    return tuple(source for source in found if not any(source.subnet_of(link) for link in links))


def side_of(name: str, config: Resolved, observed: Observed) -> Side:
    """Return what an uplink does to IPv6 sources, as things are."""
    uplink, others = config.uplinks[name], config.others(name)
    prefixes = prefixes_of(uplink, observed, alone=not others)
    own = own_addresses(uplink, others, observed, Family.V6)
    networks = _networks(uplink.interface, observed)
    return Side(
        name=name,
        device=uplink.interface,
        mode=_mode(uplink, prefixes),
        steers=uplink.nat == "none" or (uplink.nat == "masquerade" and uplink.nat6 in ("auto", "native")),
        prefixes=prefixes,
        own=tuple(a.ip for a in own if isinstance(a.ip, IPv6Address)),
        links=tuple(network for network in networks if network.prefixlen <= SUBNET),
        alone=not others,
    )


def sides(config: Resolved, observed: Observed) -> tuple[Side, ...]:
    """Return the uplinks that know a prefix of theirs or translate nothing; the others masquerade, all alike."""
    found = (
        side_of(name, config, observed)
        for name, uplink in config.uplinks.items()
        if uplink.nat6 == "native" or uplink.prefix6 or uplink.interface in observed.sourced
    )
    return tuple(side for side in found if side.prefixes or side.mode == "native")


def _mode(uplink: Uplink, prefixes: tuple[IPv6Network, ...]) -> Nat6Mode:
    if uplink.nat == "none":
        return "none"
    if uplink.nat != "masquerade":
        # A fixed IPv4 address says nothing about IPv6.
        return "snat" if isinstance(uplink.nat.snat, IPv6Address) else "none"
    if uplink.nat6 in ("native", "masquerade"):
        return uplink.nat6
    return "prefix" if prefixes else "masquerade"


def _networks(device: str, observed: Observed) -> tuple[IPv6Network, ...]:
    networks = (address.network for address in observed.addresses_of(device, Family.V6))
    return tuple(dict.fromkeys(network for network in networks if isinstance(network, IPv6Network)))


def inside_of(config: Resolved, observed: Observed) -> tuple[IPv6Network, ...]:
    """Return the prefixes of this box's links that are no uplinks, in order."""
    devices = {uplink.interface for uplink in config.uplinks.values()} | {"lo"}
    links = dict.fromkeys(a.link for a in observed.addresses if family_of(a.ip) is Family.V6 and a.link not in devices)
    found = {n for link in links for n in _networks(link, observed) if n.prefixlen <= SUBNET and not n.is_multicast}
    return tuple(sorted(found))


@lru_cache(maxsize=4)
def exchanges(known: tuple[Side, ...], inside: tuple[IPv6Network, ...]) -> Mapping[str, Mapping[IPv6Network, str]]:
    """Return for each uplink that exchanges prefixes what becomes of which, as nft text, by the uplink's name.

    The networks of one uplink do not overlap: a part is exchanged as the whole is.
    """
    result: dict[str, Mapping[IPv6Network, str]] = {}
    for side in known:
        others = {p for other in known if other is not side for p in other.prefixes}
        if side.mode == "prefix":
            result[side.name] = _exchange(side, sorted({*inside, *others}))
    return result


def _exchange(side: Side, inside: list[IPv6Network]) -> dict[IPv6Network, str]:
    images: dict[IPv6Network, str] = {}
    for network in sorted(inside, key=lambda n: n.prefixlen):
        if any(network.subnet_of(whole) for whole in (*images, *side.prefixes)):
            continue
        if (found := _image(side, network)) is not None:
            images[network] = str(found)
    return images


def _image(side: Side, network: IPv6Network) -> IPv6Network | None:
    """The first prefix of the uplink that has room for all bits, and does not put hosts on its own link."""
    for prefix in side.prefixes:
        if prefix.prefixlen <= network.prefixlen:
            found = IPv6Network((exchanged(network.network_address, prefix), network.prefixlen))
            if not any(found.overlaps(link) for link in side.links):
                return found
    return None


def exchanged(source: IPv6Address, prefix: IPv6Network) -> IPv6Address:
    """Return the source with its first bits replaced by the prefix."""
    return IPv6Address(int(prefix.network_address) | int(source) & int(prefix.hostmask))


def translated(config: Resolved, observed: Observed, uplink: str, source: IPv6Address) -> IPv6Address | None:
    """Return the source that a server sees when a connection leaves by the uplink.

    None: the uplink's own address, whichever the kernel takes for the destination. A source that `native` refuses
    is returned as it is.
    """
    side = side_of(uplink, config, observed)
    nat = config.uplinks[uplink].nat
    if not isinstance(nat, str) and isinstance(nat.snat, IPv6Address):
        return nat.snat
    if side.mode in ("native", "none") or source.is_link_local or (side.mode == "prefix" and side.passes(source)):
        return source
    for network, image in exchanges(sides(config, observed), inside_of(config, observed)).get(uplink, {}).items():
        if source in network:
            return IPv6Address(int(IPv6Network(image).network_address) | int(source) & int(network.hostmask))
    return None


@lru_cache(maxsize=64)
def claims(known: tuple[Side, ...]) -> Claims:
    """Return whose every network is, longest first; where they are nested, the longer one holds.

    An uplink that translates nothing needs the connections from its own addresses, too.
    """
    owners: dict[IPv6Network, list[str]] = {}
    for side in (side for side in known if side.steers):
        alone = [ip for ip in side.own if not any(ip in p for p in side.prefixes)] if side.mode == "native" else []
        for network in (*side.prefixes, *map(IPv6Network, alone)):
            owners.setdefault(network, []).append(side.name)
    result: list[tuple[IPv6Network, tuple[str, ...]]] = []
    done: list[IPv6Network] = []
    for network in sorted(owners, key=lambda n: (-n.prefixlen, n)):
        result += [(piece, tuple(owners[network])) for piece in _without(network, done)]
        done.append(network)
    return tuple(result)


def _without(network: IPv6Network, holes: list[IPv6Network]) -> list[IPv6Network]:
    pieces = [network]
    for hole in holes:
        if not hole.subnet_of(network):
            continue
        split: list[IPv6Network] = []
        for piece in pieces:
            if hole.subnet_of(piece):
                split += piece.address_exclude(hole)
            elif not piece.subnet_of(hole):
                split.append(piece)
        pieces = split
    return sorted(pieces)
