"""A lab whose router has one network card on a switch, with a modem of each provider on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from polywan.core.net import FAMILIES, Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import LabUplink

CARD = "card0"
"""The router's device; its far end is a port of the switch."""

SWITCH = Namespace("switch")


@contextmanager
def one_card(lab: Lab) -> Iterator[None]:
    """Put all providers' cables on a switch, and the addresses of all uplinks on one card of the router."""
    SWITCH.create()
    try:
        for uplink in lab.topology.uplinks:
            # A switch shows everybody's broadcasts to everybody.
            lab.provider(uplink.number).nft("insert rule inet lab arriving meta pkttype != host accept\n")
        SWITCH.ip(["link add switch0 type bridge", "link set switch0 up"])
        lab.router.ip(f"link set {uplink.interface} netns {SWITCH.name}" for uplink in lab.topology.uplinks)
        lab.router.ip([f"link add {CARD} type veth peer name port0 netns {SWITCH.name}"])
        ports = ["port0", *(uplink.interface for uplink in lab.topology.uplinks)]
        SWITCH.ip(f"link set {port} master switch0 up" for port in ports)
        lab.router.ip([f"link set {CARD} addrgenmode none up", f"address add fe80::2:1/64 dev {CARD} nodad"])
        lab.router.ip(line for uplink in lab.topology.uplinks for line in _addresses(uplink))
        lab.router.ip(_defaults(lab.topology.uplink(1)))
        yield
    finally:
        SWITCH.delete()


def _addresses(uplink: LabUplink) -> Iterator[str]:
    for family, address in uplink.addresses.items():
        yield f"address add {address.own} dev {CARD}{' nodad' if family is Family.V6 else ''}"


def _defaults(uplink: LabUplink) -> Iterator[str]:
    """Main's default, as one DHCP client or an administrator has made it: by the first modem."""
    for family, address in uplink.addresses.items():
        yield f"route add {family.default} via {address.gateway} dev {CARD} metric 100"


def card_configuration(lab: Lab, weights: tuple[int, ...], families: tuple[Family, ...] = FAMILIES) -> str:
    """Return a configuration with an uplink for each modem."""
    text = configuration(lab.topology, weights)
    for uplink in lab.topology.uplinks:
        keys = [f'interface = "{CARD}"']
        if Family.V4 in families:
            keys.append(f'gateway = "{uplink.addresses[Family.V4].gateway}"')
        if Family.V6 in families and Family.V6 in uplink.addresses:
            six = uplink.addresses[Family.V6]
            keys += [f'gateway6 = "{six.gateway}"', f'source = "{six.own.ip}"']
        if Family.V4 not in families:
            keys.append('families = ["ipv6"]')
        text = text.replace(f'interface = "{uplink.interface}"', "\n".join(keys))
    return text
