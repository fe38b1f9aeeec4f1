"""Kernel settings (sysctl(8), ip-sysctl in the kernel's documentation) that several uplinks need, each with its reason.

Settings are written per uplink device, so that other links keep their behaviour. For the whole box are forwarding,
which is asked for in so many words, accept_local (see `build_sysctls`), `ACCOUNTING`, and with a multipath policy
`HASH_POLICIES`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from polywan.config import Config
from polywan.config.kinds.addresses import Device
from polywan.core.identity import remembered
from polywan.core.net import Family, IPInterface
from polywan.core.resolved import Resolved
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Path, Reach, UplinkFamily


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A setting below /proc/sys: path with slashes, as ``net/ipv4/conf/eth1/rp_filter``, and its value."""

    path: str
    value: str


ALL_RP_FILTER: Final = "net/ipv4/conf/all/rp_filter"
"""What holds for every device at least; read, never written."""

EVENTS: Final = "net/netfilter/nf_conntrack_events"
"""Whether connection tracking tells of its entries: 0 never, 1 always, 2 if anybody listens; read, never written."""

HASH_POLICIES: Final = ("net/ipv4/fib_multipath_hash_policy", "net/ipv6/fib_multipath_hash_policy")
"""What the kernel chooses a nexthop by: 0 addresses, 1 addresses, protocol and ports, 2 and 3 special cases."""

ACCOUNTING: Final = ("net/netfilter/nf_conntrack_acct", "net/netfilter/nf_conntrack_timestamp")
"""Bytes, packets and age of connections that begin from then on, for `polywan flows`."""

_FLAG: Final = range(2)
_WHOLE_BOX: Final = {
    "net/ipv4/conf/all/accept_local": _FLAG,
    "net/ipv4/ip_forward": _FLAG,
    "net/ipv6/conf/all/forwarding": range(3),
    **dict.fromkeys(ACCOUNTING, _FLAG),
    **dict.fromkeys(HASH_POLICIES, range(4)),
}
_PER_DEVICE: Final = {
    ("ipv4", "rp_filter"): range(3),
    ("ipv4", "ignore_routes_with_linkdown"): _FLAG,
    ("ipv6", "ignore_routes_with_linkdown"): _FLAG,
    ("ipv4", "arp_ignore"): range(9),
    ("ipv4", "arp_announce"): range(3),
    ("ipv6", "accept_ra"): range(3),
    ("ipv6", "use_oif_addrs_only"): _FLAG,
}
_UPLINK_DEVICE: Final = Device(loopback=False)
_DEVICE_PATH: Final = re.compile(r"net/(ipv[46])/conf/([^/]+)/([a-z_]+)")
_NUMBER: Final = re.compile(r"[0-9]{1,3}")


def restorable(path: str, value: str) -> bool:
    """Tell whether polywan can have written a setting, and found that value in its place.

    What was found is read from a file, and whoever restores it may be root while the file's owner is not: only what
    `build_sysctls` yields, with a value that the kernel gives a meaning to, is worth believing.
    """
    found, values = _DEVICE_PATH.fullmatch(path), _WHOLE_BOX.get(path)
    if values is None and found is not None and _UPLINK_DEVICE.takes(found[2]):
        values = _PER_DEVICE.get((found[1], found[3]))
    return values is not None and _NUMBER.fullmatch(value) is not None and int(value) in values


def build_sysctls(
    config: Resolved, observed: Observed, reach: Mapping[UplinkFamily, Reach], current: Mapping[str, str]
) -> tuple[Sysctl, ...]:
    """Return the settings for the uplinks whose device exists.

    Once policy rules exist the kernel looks up the way back to every packet's source, to see whether the packet
    claims to come from this box, even with rp_filter off: 0.2 to 0.3 µs for each. With accept_local it does
    not; the same packets are dropped by a rule of ours instead, which established connections do not meet.

    Args:
        config: the file.
        observed: the world.
        reach: how each uplink can be used.
        current: present values, of which `ALL_RP_FILTER`, `HASH_POLICIES` and accept_ra matter; those that are not
            known yet count as the kernel's defaults.
    """
    own = tuple(
        _own_addresses(device, observed, reach.get((name, Family.V6))) if device in observed.links else None
        for name, uplink in config.uplinks.items()
        for device in (uplink.interface,)
    )
    return _built(
        _Asked(
            devices=tuple((u.interface, u.families is None or "ipv6" in u.families) for u in config.uplinks.values()),
            own=own,
            shared=_shared_networks(config, observed),
            forwarding=wants_forwarding(config),
            multipath=wants_multipath(config.file),
        ),
        _Present.of(config, current),
    )


class _Present(NamedTuple):
    """What matters of the present settings.

    Attributes:
        loose: some filter is on, so that a loose one has to outweigh it.
        unadvertised: for each uplink, whether its device ignores router advertisements.
        hashing: the kernel's hash policies, IPv4 and IPv6.
    """

    loose: bool
    unadvertised: tuple[bool, ...]
    hashing: tuple[str, ...]

    @classmethod
    def of(cls, config: Resolved, current: Mapping[str, str]) -> Self:
        """Pick what matters out of a thousand values."""
        devices = (uplink.interface for uplink in config.uplinks.values())
        return cls(
            loose=current.get(ALL_RP_FILTER, "0") != "0",
            unadvertised=tuple(current.get(f"net/ipv6/conf/{device}/accept_ra") == "0" for device in devices),
            hashing=tuple(current.get(path, "0") for path in HASH_POLICIES),
        )


class _Asked(NamedTuple):
    """What settings depend on, beside the present ones.

    Attributes:
        devices: of the uplinks, and whether they may have IPv6.
        own: what `_own_addresses` says of each; None where there is no such device.
        shared: those that share a network.
    """

    devices: tuple[tuple[str, bool], ...]
    own: tuple[str | None, ...]
    shared: frozenset[str]
    forwarding: bool
    multipath: bool


@remembered
def _built(asked: _Asked, present: _Present) -> tuple[Sysctl, ...]:
    """Build the settings, but once for the same world: those of hundreds of devices are a thousand."""
    # Several uplinks may have one device.
    return tuple(dict.fromkeys(_settings(asked, present)))


def _settings(asked: _Asked, present: _Present) -> Iterator[Sysctl]:
    yield Sysctl("net/ipv4/conf/all/accept_local", "1")
    # The kernel takes the larger of this device's value and all's. Strict filtering (1) ignores marks and drops
    # answers on every link but main's own: loose (2) outweighs it. Loose itself lets every source pass as long
    # as there is a default route, so that without it nothing is lost.
    loose = "2" if present.loose else "0"
    for (device, ipv6), only_own, ignored in zip(asked.devices, asked.own, present.unadvertised, strict=True):
        if only_own is None:
            continue
        yield Sysctl(f"net/ipv4/conf/{device}/rp_filter", loose)
        # A link without carrier must not be chosen by main's routes.
        yield Sysctl(f"net/ipv4/conf/{device}/ignore_routes_with_linkdown", "1")
        yield Sysctl(f"net/ipv6/conf/{device}/ignore_routes_with_linkdown", "1")
        if only_own:
            yield Sysctl(f"net/ipv6/conf/{device}/use_oif_addrs_only", only_own)
        if device in asked.shared:
            # Two links in one network: each answers ARP for its own address only.
            yield Sysctl(f"net/ipv4/conf/{device}/arp_ignore", "1")
            yield Sysctl(f"net/ipv4/conf/{device}/arp_announce", "2")
        # A forwarding box ignores router advertisements unless told otherwise (2). 0 is somebody's decision: a static
        # address, or a network manager that reads advertisements by itself.
        if asked.forwarding and ipv6 and not ignored:
            yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "2")
    for path in ACCOUNTING:
        yield Sysctl(path, "1")
    if asked.forwarding:
        yield Sysctl("net/ipv4/ip_forward", "1")
        yield Sysctl("net/ipv6/conf/all/forwarding", "1")
    if asked.multipath:
        for path, present_value in zip(HASH_POLICIES, present.hashing, strict=True):
            # By addresses alone, a client and a server would always meet the same uplink. Inner headers (2) and
            # fields chosen by hand (3) are somebody's decision.
            if present_value in {"0", "1"}:
                yield Sysctl(path, "1")


def _own_addresses(device: str, observed: Observed, reached: Reach | None) -> str:
    """Let an IPv6 connection that begins while its uplink is between two addresses have none, not another link's.

    Returns the value of use_oif_addrs_only; empty where it is left as it is.
    """
    if observed.addresses_of(device, Family.V6):
        return "1"
    # It speaks by an address of another link, on purpose.
    return "0" if isinstance(reached, Path) else ""


def usual(devices: Iterable[str]) -> Iterator[Sysctl]:
    """Yield the settings that are commonly wanted with these uplink devices, for whoever has lost what he wrote."""
    yield Sysctl("net/ipv4/conf/all/accept_local", "1")
    yield Sysctl("net/ipv4/ip_forward", "1")
    yield Sysctl("net/ipv6/conf/all/forwarding", "1")
    for path in ACCOUNTING:
        yield Sysctl(path, "1")
    for device in devices:
        yield Sysctl(f"net/ipv4/conf/{device}/rp_filter", "2")
        yield Sysctl(f"net/ipv4/conf/{device}/ignore_routes_with_linkdown", "1")
        yield Sysctl(f"net/ipv6/conf/{device}/ignore_routes_with_linkdown", "1")
        yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "2")


def wants_multipath(config: Config) -> bool:
    """True when some policy leaves the choice to the kernel."""
    return any(policy.algorithm == "multipath" for policy in config.policies.values())


def wants_forwarding(config: Resolved) -> bool:
    """True when the box has to forward: said so, or some rule speaks of traffic that comes in by a link."""
    asked = config.global_.forwarding
    if asked == "auto":
        return any(rule.in_interface or rule.not_.in_interface for rule in config.rules)
    return asked


def _shared_networks(config: Resolved, observed: Observed) -> frozenset[str]:
    return _in_one_network(
        tuple((u.interface, observed.addresses_of(u.interface, Family.V4)) for u in config.uplinks.values())
    )


@remembered
def _in_one_network(addresses: tuple[tuple[str, tuple[IPInterface, ...]], ...]) -> frozenset[str]:
    networks = [
        (ip.network, device)
        for device, ips in dict(addresses).items()
        for ip in set(ips)
        if ip.network.prefixlen < Family.V4.host_length
    ]
    count = Counter(network for network, _ in set(networks))
    return frozenset(device for network, device in networks if count[network] > 1)
