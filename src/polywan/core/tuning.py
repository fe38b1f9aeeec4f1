"""Kernel settings (sysctl(8), ip-sysctl in the kernel's documentation) that several uplinks need, each with its reason.

Settings are written per uplink device, never for `all`, so that other links keep their behaviour; the one
exception is forwarding, which is asked for in so many words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from polywan.config import Config
from polywan.core.net import Family
from polywan.core.observed import Observed


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A setting below /proc/sys: path with slashes, as ``net/ipv4/conf/eth1/rp_filter``, and its value."""

    path: str
    value: str


def build_sysctls(config: Config, observed: Observed) -> Iterator[Sysctl]:
    """Yield the settings for the uplinks whose device exists."""
    shared = _shared_networks(config, observed)
    forwarding = wants_forwarding(config)
    for uplink in config.uplinks.values():
        device = uplink.interface
        if device not in observed.links:
            continue
        # Strict reverse-path filtering ignores marks and drops answers on every link but main's own;
        # the kernel takes the larger of this and conf/all.
        yield Sysctl(f"net/ipv4/conf/{device}/rp_filter", "2")
        # A link without carrier must not be chosen by main's routes.
        yield Sysctl(f"net/ipv4/conf/{device}/ignore_routes_with_linkdown", "1")
        yield Sysctl(f"net/ipv6/conf/{device}/ignore_routes_with_linkdown", "1")
        if device in shared:
            # Two links in one network: each answers ARP for its own address only.
            yield Sysctl(f"net/ipv4/conf/{device}/arp_ignore", "1")
            yield Sysctl(f"net/ipv4/conf/{device}/arp_announce", "2")
        if forwarding:
            # A forwarding box ignores router advertisements unless told otherwise.
            yield Sysctl(f"net/ipv6/conf/{device}/accept_ra", "2")
    if forwarding:
        yield Sysctl("net/ipv4/ip_forward", "1")
        yield Sysctl("net/ipv6/conf/all/forwarding", "1")


def wants_forwarding(config: Config) -> bool:
    """True when the box has to forward: said so, or some rule speaks of traffic that comes in by a link."""
    asked = config.global_.forwarding
    if asked == "auto":
        return any(rule.in_interface or rule.not_.in_interface for rule in config.rules)
    return asked


def _shared_networks(config: Config, observed: Observed) -> frozenset[str]:
    devices = {u.interface for u in config.uplinks.values()}
    networks = [
        (ip.network, device)
        for device in devices
        for ip in set(observed.addresses_of(device, Family.V4))
        if ip.network.prefixlen < Family.V4.host_length
    ]
    count = Counter(network for network, _ in set(networks))
    return frozenset(device for network, device in networks if count[network] > 1)
