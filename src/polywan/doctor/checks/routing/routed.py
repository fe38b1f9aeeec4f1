"""Is this box meant to route for a network, or does it only have an address there?"""

from __future__ import annotations

from polywan.core.firewall.model import Device, Prefix, Rule, Translate
from polywan.core.plan.lans import Lan
from polywan.doctor.box import Box


def routes_for(box: Box, lan: Lan, *, named: bool = False) -> bool:
    """Tell whether somebody wants packets from a network forwarded: the file says so, or its sources are translated.

    A second card for storage or management is no reason, nor is a firewall that drops what is forwarded.

    Args:
        box: the machine.
        lan: the network.
        named: a rule that translates has to name it: one without a source may be for the box's own packets.
    """
    if box.config is not None and isinstance(box.config.global_.forwarding, bool):
        return box.config.global_.forwarding
    arriving = [rule.in_interface or () for rule in box.config.rules] if box.config is not None else []
    if any(lan.device in devices for devices in arriving):
        return True
    same = [other for other in box.lans if other.device == lan.device]
    rules = (r for t in box.firewall.tables for c in t.chains if c.hook in ("postrouting", "") for r in c.rules)
    return any(_translates(rule, other, named=named) for rule in rules for other in same)


def _translates(rule: Rule, lan: Lan, *, named: bool) -> bool:
    if not any(isinstance(action, Translate) and action.kind in ("masquerade", "snat") for action in rule.actions):
        return False
    sources = [match for match in rule.matches if isinstance(match, Prefix) and match.end == "source"]
    if named and not any(not match.invert for match in sources):
        return False
    arrives = [match for match in rule.matches if isinstance(match, Device) and match.end == "in"]
    return all(_fits(match, lan) for match in sources) and all((lan.device in m.names) is not m.invert for m in arrives)


def _fits(match: Prefix, lan: Lan) -> bool:
    within = any(n.version == lan.network.version and lan.own.ip in n for n in match.networks)
    return within is not match.invert
