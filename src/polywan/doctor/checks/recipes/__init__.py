"""What is wrong with rules that were made by hand?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks.recipes import (
    bare_masquerade,
    emptied_table,
    equalize,
    hash_policy,
    last_writer_wins,
    lost_multipath,
    nth_per_packet,
    restore_without_direction,
    stale_copied_table,
    stale_lock,
)

RECIPES: Final[tuple[Check, ...]] = (
    Check("nth-per-packet", nth_per_packet.check, ("observed", "firewall")),
    Check("last-writer-wins", last_writer_wins.check, ("observed", "firewall")),
    Check(
        "restore-without-direction",
        restore_without_direction.check,
        ("observed", "firewall", "answers", "settings"),
        restore_without_direction.questions,
    ),
    Check("emptied-table", emptied_table.check, ("observed", "routes", "firewall")),
    Check("lost-multipath", lost_multipath.check, ("observed", "routes")),
    Check("hash-policy", hash_policy.check, ("routes", "settings")),
    Check("equalize", equalize.check, ("scripts",)),
    Check("stale-copied-table", stale_copied_table.check, ("observed", "routes", "scripts")),
    Check("stale-lock", stale_lock.check, ("locks",)),
    Check("bare-masquerade", bare_masquerade.check, ("observed", "firewall")),
)
