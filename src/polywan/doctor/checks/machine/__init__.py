"""What is wrong with the rest of the box?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks.machine import (
    clock_unset,
    config_faults,
    conntrack_buckets,
    conntrack_full,
    missing_feature,
    not_at_boot,
    own_warnings,
    sysctl_undone,
    time_zone,
    two_configurations,
)

MACHINE: Final[tuple[Check, ...]] = (
    Check("config-faults", config_faults.check),
    Check("missing-feature", missing_feature.check, ("lacking", "machine")),
    Check("conntrack-full", conntrack_full.check, ("settings", "machine")),
    Check("conntrack-buckets", conntrack_buckets.check, ("settings", "machine")),
    Check("sysctl-undone", sysctl_undone.check, ("observed", "settings", "machine")),
    Check("not-at-boot", not_at_boot.check, ("machine",)),
    Check("two-configurations", two_configurations.check, ("machine", "in_force")),
    Check("clock-unset", clock_unset.check, ("machine",)),
    Check("time-zone", time_zone.check, ("machine",)),
    Check("polywan-warnings", own_warnings.check, ("warnings",)),
)
