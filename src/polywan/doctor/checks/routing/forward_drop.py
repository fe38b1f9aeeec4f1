"""A firewall drops what a network behind this box sends by a link; its rules are asked, in the order of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.walk import Outcome, Passing, outcome
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.cautions import FORWARDING
from polywan.core.plan.lans import Lan
from polywan.core.words import listed
from polywan.doctor.box import REMOTE, Box
from polywan.doctor.checks.routing.routed import routes_for
from polywan.doctor.facts.clients import host_of
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.mark_rules import program_of


def check(box: Box) -> Iterator[Finding]:
    """Find pairs of a network and a link between which new connections are dropped."""
    for family in FAMILIES:
        if box.setting(FORWARDING[family]) != 1:
            continue
        for lan in filter(partial(routes_for, box), box.inside(family)):
            egresses = {egress.device: egress for egress in box.sending(family)}
            outcomes = {device: _outcome(box, lan, egress, family) for device, egress in egresses.items()}
            dropped = {device: found for device, found in outcomes.items() if found.verdict in ("drop", "reject")}
            if dropped:
                yield _finding(box, lan, dropped, [device for device in outcomes if device not in dropped], family)


def _outcome(box: Box, lan: Lan, egress: Egress, family: Family) -> Outcome:
    return outcome(
        box.firewall,
        Passing(
            family=family,
            in_device=lan.device,
            out_device=egress.device,
            source=host_of(lan),
            destination=REMOTE[family],
            protocol="tcp",
            port=443,
            mark=egress.mark,
            ct_mark=egress.mark,
        ),
    )


def _finding(box: Box, lan: Lan, dropped: dict[str, Outcome], passed: list[str], family: Family) -> Finding:
    devices = listed(list(dropped))
    evidence = tuple(dict.fromkeys(f"{device}: {found.text}" for device, found in dropped.items()))
    used = [egress.device for egress in box.in_use(family)]
    beside = f", and those by {listed(passed)} pass: every second page does not load" if passed else ""
    fails = f"connections that are given {devices} fail{beside}"
    later = f"nothing loads once {devices} takes over"
    return Finding(
        check="forward-drop",
        severity="fault",
        what=f"the firewall drops new connections from {lan} to {devices} (IPv{family})",
        evidence=evidence,
        consequence=fails if any(device in used for device in dropped) else later,
        fix=Fix(how=_how(lan.device, dropped)),
    )


def _how(inside: str, dropped: dict[str, Outcome]) -> str:
    device, found = next(iter(dropped.items()))
    table, chain = found.table, found.chain
    if table is not None and (program := program_of(table)):
        command = f"{program} -I FORWARD -i {inside} -o {device} -j ACCEPT"
    elif table is not None and chain is not None:
        rule = f'iifname "{inside}" oifname "{device}" accept'
        command = f"nft insert rule {table.family} {table.name} {chain.name} {rule}"
    else:
        command = f"accept packets from {inside} to {device}"
    return f"let it pass where your firewall is set up, so that it stays; to try it now: {command}"
