"""Which other programs are in the way?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks.neighbours import (
    foreign_offload,
    manager_removes_rules,
    mark_overlap,
    rules_before_ours,
    ruleset_flusher,
    two_balancers,
    vpn_takes_default,
)

NEIGHBOURS: Final[tuple[Check, ...]] = (
    Check("mark-overlap", mark_overlap.check, ("observed", "firewall")),
    Check("rules-before-ours", rules_before_ours.check, ("observed",)),
    Check("manager-removes-rules", manager_removes_rules.check, ("observed", "programs")),
    Check("ruleset-flusher", ruleset_flusher.check, ("firewall", "programs")),
    Check("foreign-offload", foreign_offload.check, ("observed", "firewall")),
    Check("two-balancers", two_balancers.check, ("firewall", "programs")),
    Check("vpn-takes-default", vpn_takes_default.check, ("observed",)),
)
