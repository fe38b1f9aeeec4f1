"""Probes that need no entry of connection tracking: when its table is full, the kernel refuses every new one."""

from __future__ import annotations

from typing import Final

from polywan.core.ruleset.model import Chain, Hook, NftRule

PRIORITY: Final = 7
"""SO_PRIORITY of a probe that is sent once more because the kernel refused it (socket(7)): TC_PRIO_CONTROL."""

_RAW: Final = -300  # before connection tracking


def untracked_chains(mask: int) -> dict[str, Chain]:
    """Return the chain that keeps such probes from connection tracking.

    Not all probes: where the administrator's own rules let in nothing but answers, these are known by their entries.

    Args:
        mask: bits of the mark that are ours; probes always have one.
    """
    rule = NftRule(
        f"meta priority 0:{PRIORITY} meta mark & {mask:#010x} != 0 meta l4proto {{ icmp, icmpv6 }} notrack",
        "a probe that found no room in the table of connections",
    )
    return {"untracked": Chain((rule,), Hook("filter", "output", _RAW))}
