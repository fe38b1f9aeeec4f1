"""The next hop of a line does not answer ARP or neighbour discovery, or the device has no carrier at all.

A health target that answers by the line proves that its next hop works, whatever it says to a question: some routers
answer none, and their administrators set a permanent entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.net import FAMILIES, TABLE_MAIN
from polywan.core.words import listed
from polywan.doctor.box import Box, ignoring
from polywan.doctor.checks.keep import name_of
from polywan.doctor.facts.line import GatewayAnswer

_WITHOUT_QUESTION: Final = frozenset({"PERMANENT", "NOARP"})
"""States of the kernel's entry (ip-neighbour(8)) with which it asks nobody."""

_UNKNOWN: Final = frozenset({"FAILED", "INCOMPLETE"})
"""States in which the kernel itself has no answer; what it learned before the line broke proves nothing."""


def check(box: Box) -> Iterator[Finding]:
    """Find lines whose next hop is silent, and without a daemon to say so, links without carrier."""
    alive = {(size.egress.device, size.egress.family) for size in box.line.sizes if size.alive}
    silent: dict[str, list[GatewayAnswer]] = {}
    for answer in box.line.gateways:
        egress = answer.egress
        if not answer.ok and answer.state not in _WITHOUT_QUESTION and (egress.device, egress.family) not in alive:
            silent.setdefault(egress.device, []).append(answer)
    for device, answers in silent.items():
        yield _silent(device, answers)
    if box.status is None:
        yield from _without_carrier(box)


def _silent(device: str, answers: list[GatewayAnswer]) -> Finding:
    evidence = []
    for answer in answers:
        evidence.append(f"{answer.detail} by {device}")
        if answer.state in _UNKNOWN:
            evidence.append(f"`ip neighbour show {answer.gateway} dev {quote(device)}`: {answer.state}")
    evidence.append(f"no health target answers by {device} either")
    gateways = listed(list(dict.fromkeys(str(answer.gateway) for answer in answers)))
    several = len(answers) > 1
    return Finding(
        check="gateway-silent",
        severity="fault",
        what=f"gateway{'s' if several else ''} {gateways} of {device} {'do' if several else 'does'} not answer, "
        "although the link is up",
        evidence=tuple(dict.fromkeys(evidence)),
        consequence=f"connections by {device} time out: its packets have no next hop",
        fix=Fix(
            how=f"restart the modem or router at the other end of {device}, and see that the cable is in the right "
            "port; if its address has changed, renew the lease (DHCP) or correct the gateway in your network settings"
        ),
    )


def _without_carrier(box: Box) -> Iterator[Finding]:
    """Find default routes that are used, and uplinks of the file, whose device leads to nobody."""
    names = {name: uplink for name, uplink in box.config.uplinks.items() if uplink.enabled} if box.config else {}
    for link in box.observed.links.values():
        written = [name for name, uplink in names.items() if uplink.interface == link.name]
        routes = [] if link.usable or not link.up else list(_routes(box, link.name))
        if link.usable or not (written or routes):
            continue
        state = "has no carrier" if link.up else "is administratively down"
        evidence = [f"`ip link show {quote(link.name)}`: {'NO-CARRIER' if link.up else 'state DOWN'}"]
        yield Finding(
            check="gateway-silent",
            severity="warning",
            what=f"{link.name} {state}"
            + (f": uplink {written[0]}" if written else ", and a default route leads by it"),
            evidence=(*evidence, *routes),
            consequence=f"nothing leaves by {link.name}"
            + (", and connections that this route is chosen for get no answer" if routes else ""),
            fix=Fix(how=f"see that the cable of {link.name} is plugged in and that the other end has power"),
        )


def _routes(box: Box, device: str) -> Iterator[str]:
    """Yield main's default routes by a dead device that the kernel chooses nevertheless."""
    for family in FAMILIES:
        main = [d for d in box.observed.defaults if d.family is family and d.table == TABLE_MAIN and d.source is None]
        best = min((d.metric for d in main), default=0)
        if not box.passes_over(family, device) and any(d.link == device and d.metric == best for d in main):
            name = name_of(ignoring(family, device))
            yield f"main's best IPv{family} default route leads by {device}, and {name} = 0"
