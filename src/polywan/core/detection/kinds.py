"""What a link is by its kind and its driver: a bridge of containers, a tunnel, a modem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from polywan.core.net import Family, IPInterface
from polywan.core.world.observed import Link, Observed

_CONTAINERS: Final = re.compile(
    r"docker\d+|br-[0-9a-f]{12}|(virbr|lxcbr|lxdbr|incusbr|podman|cni|nerdctl)\d+|cni-.*|kube-.*"
)
"""Bridges of containers and virtual machines: who makes them sees to forwarding and to the chains for them."""

TUNNELS: Final = frozenset(
    [
        *("wireguard", "tun", "ipip", "sit", "gre", "ip6tnl", "ip6gre", "vti", "vti6", "xfrm", "amneziawg"),
        *("ovpn", "ovpn-dco", "gretap", "ip6gretap", "erspan", "ip6erspan", "vxlan", "geneve", "bareudp", "l2tpeth"),
    ]
)
"""Kinds of links that send by other links."""

_TEMPLATES: Final = re.compile(r"(tunl|gre|gretap|erspan|sit|ip6tnl|ip6gre|ip_vti|ip6_vti|teql|ifb|dummy|bond|team)\d+")
"""Devices that a kernel module makes when it is loaded, and that nobody may ever use."""

_MODEMS: Final = frozenset(
    ["qmi_wwan", "qmi_wwan_q", "cdc_mbim", "huawei_cdc_ncm", "sierra_net", "hso", "iosm", "mtk_t7xx", "mhi_wwan_mbim"]
)
_TETHERS: Final = frozenset(["rndis_host", "ipheth", "cdc_ncm", "cdc_ether", "cdc_eem", "cdc_subset"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the kernel shows of the hardware behind a link (/sys/class/net); empty where there is none.

    Attributes:
        driver: its name, as "e1000e", "qmi_wwan".
        devtype: as "wlan", "wwan", "bluetooth", "bridge".
        speed: of the port, Mbit/s; 0 for not known.
    """

    driver: str = ""
    devtype: str = ""
    speed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What is known of a machine beside routing.

    Attributes:
        devices: by link.
        sessions: for each PPPoE session the Ethernet link that carries it.
        l2tp: links that are ends of L2TP sessions.
        serial: serial ports of modems, as "ttyUSB2".
    """

    devices: Mapping[str, Device] = field(default_factory=dict)
    sessions: tuple[str, ...] = ()
    l2tp: frozenset[str] = frozenset()
    serial: tuple[str, ...] = ()


def is_of_containers(link: Link) -> bool:
    """True for a bridge of containers or virtual machines, by its name."""
    return _CONTAINERS.fullmatch(link.name) is not None


def is_template(link: Link) -> bool:
    """True for a device that came with a kernel module."""
    return _TEMPLATES.fullmatch(link.name) is not None


def is_ppp(link: Link) -> bool:
    """True for the end of a PPP session; kernels before 4.7 do not tell the kind."""
    return link.kind == "ppp" or (not link.kind and link.point_to_point and link.name.startswith("ppp"))


def mobile(link: Link, device: Device) -> str:
    """Return what makes the volume of a link cost money, for people; empty when nothing is known to."""
    if device.devtype == "wwan" or device.driver in _MODEMS or link.kind in {"wwan", "rmnet"}:
        by = f" ({device.driver})" if device.driver else ""
        return f"mobile modem{by}"
    if device.driver in _TETHERS:
        return f"USB tethering ({device.driver})"
    return "Bluetooth tethering" if device.devtype == "bluetooth" else ""


def address_with_hosts(link: Link, observed: Observed, family: Family) -> IPInterface | None:
    """Return the first address of a link whose network has room for other hosts."""
    longest = 30 if family is Family.V4 else 64
    return next((ip for ip in observed.addresses_of(link.name, family) if ip.network.prefixlen <= longest), None)
