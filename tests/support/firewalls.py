"""What takes nftables rules away: programs that load a firewall anew, and people who flush."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polywan.lab.network import Lab

if TYPE_CHECKING:
    from support.netns import WaitFor

FIREWALL = """flush ruleset
table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iifname { "lo", "lan0" } accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
	}
}
"""

CAUSES = {
    "everything is flushed": "flush ruleset\n",
    "our table is flushed": "flush table inet polywan\n",
    "our table is deleted": "delete table inet polywan\n",
    "a firewall is loaded": FIREWALL,
}

TIMES = 4
"""Of each cause: five repairs in ten seconds would be a fight, in which the daemon waits."""


def table_is_there(lab: Lab) -> bool:
    return lab.router.run(["nft", "list", "chain", "inet", "polywan", "nat"], check=False).returncode == 0


async def flushed(lab: Lab, text: str, wait_for: WaitFor) -> None:
    """Load the text and wait until our table is whole again."""
    await asyncio.to_thread(lab.router.nft, text)
    await asyncio.to_thread(wait_for, lambda: table_is_there(lab), 2.0, "the daemon repairs")
