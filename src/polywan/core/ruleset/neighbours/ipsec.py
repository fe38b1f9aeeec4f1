"""What IPsec takes is IPsec's: not chosen for, not translated, not held back (docs/design/neighbours.md).

A policy (``ip xfrm policy``) takes a packet once it is routed, and looks again after its source was translated: with
another source it matches no longer, and leaves in clear. So nothing may touch its source. Before routing nobody can
know: a forwarded first packet takes its turn like any other, and loses it again on its way out.
"""

from __future__ import annotations

from typing import Final

from polywan.core.net import MarkLayout
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.model import NftRule

TAKEN: Final = "rt ipsec exists"
"""Matches what leaves by IPsec, in output, forward and postrouting (nft(8), "rt expression")."""

_ENDS: Final = "meta l4proto { esp, ah }"

_TUNNELS: Final = "meta l4proto { 4, 41, 47, esp, ah }"
"""Protocols whose packets carry others, between two ends that know each other: IPIP, 6in4, GRE, IPsec."""


def not_translated(inputs: RulesetInput) -> tuple[NftRule, ...]:
    """Return what stands before every translation of a source; only the first packet of a connection meets it."""
    own = NftRule(f"{_TUNNELS} fib saddr . oif type local accept", "a tunnel of this box, by the link of its end")
    if not inputs.observed.xfrm:
        return (own,)
    return (NftRule(f"{TAKEN} ct mark set ct mark & {inputs.layout.keep:#010x} accept", "taken by IPsec"), own)


def let_out(*, xfrm: bool) -> tuple[NftRule, ...]:
    """Return what lets packets past guards and kill switch, by whichever uplink their tunnel leaves."""
    return (NftRule(f"{TAKEN} accept", "taken by IPsec: leaves by its tunnel"),) if xfrm else ()


def of_this_box(inputs: RulesetInput) -> tuple[NftRule, ...]:
    """Return what comes before a choice for the box's own packets: the kernel has routed them once already."""
    carriers = NftRule(f"{_ENDS} oifname vmap @arrival", "IPsec: by the link of its own end")
    shared = (NftRule(f"{_ENDS} {inputs.by_shared} goto shared_bound", carriers.why),) if inputs.shared else ()
    return (*let_out(xfrm=inputs.observed.xfrm), *shared, carriers)


def unwrapped(layout: MarkLayout, *, xfrm: bool) -> tuple[NftRule, ...]:
    """Return what takes a mark of ours off what came in a tunnel: it is that of the packet which carried it."""
    if not xfrm:
        return ()
    carried = f"meta secpath exists meta mark & {layout.mask:#010x} @ours"
    return (NftRule(f"{carried} meta mark set meta mark & {layout.keep:#010x}", "IPsec: its carrier's mark"),)


def from_outside(*, xfrm: bool) -> str:
    """Return the condition by which a packet really came in by the uplink, and not out of a tunnel."""
    # What IPsec delivers has the device of its carrier; it comes from the other end's network.
    return "meta secpath missing " if xfrm else ""
