"""What is wrong with the lines?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks.line import (
    asymmetric_ipv6,
    captive_portal,
    carrier_flaps,
    cgnat,
    dns_of_other_provider,
    gateway_silent,
    link_errors,
    mtu_black_hole,
    same_network_twins,
    uplink_down,
)

LINE: Final[tuple[Check, ...]] = (
    Check("uplink-down", uplink_down.check, ("status",)),
    Check("gateway-silent", gateway_silent.check, ("observed", "line", "line.gateways", "line.sizes")),
    Check("captive-portal", captive_portal.check, ("observed", "line", "line.pages")),
    Check("mtu-black-hole", mtu_black_hole.check, ("observed", "line", "line.sizes", "routes", "firewall")),
    Check("dns-of-other-provider", dns_of_other_provider.check, ("observed", "line", "line.lookups")),
    Check("asymmetric-ipv6", asymmetric_ipv6.check, ("observed", "answers", "firewall"), asymmetric_ipv6.questions),
    Check("same-network-twins", same_network_twins.check, ("observed", "settings", "line")),
    Check("cgnat", cgnat.check, ("observed", "firewall")),
    Check("link-errors", link_errors.check, ("observed", "line", "line.counters")),
    Check("carrier-flaps", carrier_flaps.check, ("events",)),
)
