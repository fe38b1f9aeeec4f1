"""Do packets find their way through this box, and back?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks.routing import forward_drop, forwarding_off, no_default, strict_rp_filter

ROUTING: Final[tuple[Check, ...]] = (
    Check("strict-rp-filter", strict_rp_filter.check, ("observed", "settings", "answers"), strict_rp_filter.questions),
    Check("no-default", no_default.check, ("observed", "answers"), no_default.questions),
    Check("forwarding-off", forwarding_off.check, ("observed", "settings")),
    Check("forward-drop", forward_drop.check, ("observed", "firewall")),
)
