"""What the router's kernel holds, for comparison, and things of other programs in it."""

from __future__ import annotations

import re

from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.lab.network import Lab


def kernel(lab: Lab) -> dict[str, str]:
    """Everything of the router's networking that outlasts the daemon, as text."""
    shown = {
        " ".join(argv): lab.router.run(argv, check=False).stdout
        for argv in (
            ["ip", "rule"],
            ["ip", "-6", "rule"],
            ["ip", "route", "show", "table", "all"],
            ["ip", "-6", "route", "show", "table", "all"],
            ["nft", "list", "ruleset"],
        )
    }
    held = re.compile(rf"^table {KEEP_TABLE} .*?^}}\n", re.DOTALL | re.MULTILINE)
    shown["nft list ruleset"] = held.sub("", shown["nft list ruleset"])
    for uplink in lab.topology.uplinks:
        for key in ("rp_filter", "ignore_routes_with_linkdown", "arp_ignore", "arp_announce"):
            path = f"ipv4/conf/{uplink.interface}/{key}"
            shown[path] = lab.router.read_sysctl(path)
        path = f"ipv6/conf/{uplink.interface}/accept_ra"
        shown[path] = lab.router.read_sysctl(path)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/accept_local"):
        shown[path] = lab.router.read_sysctl(path)
    return shown


FOREIGN = """
table inet other { chain keep { type filter hook forward priority 0; policy accept;
counter
}
}
"""


def add_foreign(lab: Lab) -> None:
    """Things of other programs, some of them close to ours."""
    lab.router.nft(FOREIGN.replace("counter\n", ""))
    lab.router.ip(["rule add pref 5000 fwmark 0x40000/0xc0000 lookup 52", "route add 192.0.2.0/24 dev lan0 table 52"])
