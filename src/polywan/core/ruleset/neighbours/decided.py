"""Which first packets are polywan's to balance: the question of chain `classify`, and who decided a packet of this box.

See docs/design/neighbours.md: main's default would have decided, by an uplink, and nobody else has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.core.identity import remembered
from polywan.core.net import FAMILIES, UNBOUND_SOURCE, Family, IPInterface, TableId
from polywan.core.routing.first_route import ours_to_balance
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.model import Chain, Key, NftRule
from polywan.core.ruleset.neighbours.foreign_rules import ENTRY_CHAIN, OWN_ENTRY_CHAIN, own_chains, theirs_chains
from polywan.core.ruleset.neighbours.specific_routes import left_alone
from polywan.core.world.foreign_routing import Destination, ForeignRule
from polywan.core.world.observed import Observed
from polywan.core.world.shared_device import own_addresses


def asking(inputs: RulesetInput) -> Iterator[NftRule]:
    """Does main know more about the destination than a default, or has it one that leaves by an uplink?

    The reserved mark leads the lookup to main and to nothing else; in IPv4 to its specific routes.
    """
    ask = f"meta mark set meta mark | {inputs.layout.reserved:#010x} fib daddr . mark"
    devices = {u.interface for u in inputs.config.uplinks.values()}
    if ours_to_balance(inputs.observed, devices, Family.V4):
        why = "main's default decides, by an uplink or not at all"
        yield NftRule(f"meta nfproto ipv4 {ask} oif missing goto steering_rules", why)
    if ours_to_balance(inputs.observed, devices, Family.V6):
        yield from left_alone(inputs.observed, devices, Family.V6)
        yield NftRule(
            f"meta nfproto ipv6 {ask} oifname @uplink_routes goto steering_rules", "main's default, by an uplink"
        )
        yield NftRule("meta nfproto ipv6 fib daddr . mark oif missing goto steering_rules", "main knows no way")


def theirs(inputs: RulesetInput) -> Iterator[NftRule]:
    """Yield the jump to what policy rules of others decide; nothing while none decides anything."""
    if ENTRY_CHAIN in of_others(inputs):
        yield NftRule(f"jump {ENTRY_CHAIN}", "what policy rules of others decide is theirs")


def of_others(inputs: RulesetInput) -> dict[str, Chain]:
    """Return the chains of policy rules of others, for what is forwarded and for the box's own packets."""
    known = inputs.observed
    return _of_others(known.rules, known.tables, with_default(known))


@remembered
def _of_others(
    rules: tuple[ForeignRule, ...], tables: Mapping[TableId, tuple[Destination, ...]], main: frozenset[Family]
) -> dict[str, Chain]:
    own = own_chains(rules, tables, frozenset(FAMILIES), main=main)
    return {**theirs_chains(rules, tables, main=main), **own}


def with_default(observed: Observed) -> frozenset[Family]:
    """Return the families in which main has a default route that works."""
    return frozenset(family for family in FAMILIES if observed.main_default_links(family))


def first(inputs: RulesetInput) -> Iterator[NftRule]:
    """Who has decided the first route of a packet of this box (`core/routing/first_route.py`)?"""
    yield NftRule(f"ip saddr {UNBOUND_SOURCE} goto steering_rules", "TCP that is bound to nothing: ours to balance")
    devices = {u.interface for u in inputs.config.uplinks.values()}
    for family in FAMILIES:
        yield from left_alone(inputs.observed, devices, family)
    if OWN_ENTRY_CHAIN in of_others(inputs):
        yield NftRule(f"jump {OWN_ENTRY_CHAIN}", "what policy rules of others decide is theirs")
    # On the link of main's default nothing shows whether a socket is bound, but of TCP, which has a source of its own.
    doubtful = "meta l4proto != tcp " if inputs.unbound_source else ""
    if links := ", ".join(f'"{link}"' for link in sorted(_unbound(inputs))):
        text = f"meta nfproto ipv4 {doubtful}oifname {{ {links} }} goto steering_rules"
        yield NftRule(text, "perhaps bound: by rules; without one, all but TCP stays here")
    if inputs.shared:
        yield NftRule(f"meta nfproto ipv4 {inputs.by_shared} goto shared_bound", "bound to a device or an address")
        yield from _elsewhere(inputs)
    yield NftRule("meta nfproto ipv4 oifname vmap @arrival", "bound to an uplink by device or address")
    yield NftRule("meta nfproto ipv6 oifname vmap @bound_6", "bound to an uplink by device or address")
    yield NftRule("goto steering_rules", "the box follows the same policies")


def _elsewhere(inputs: RulesetInput) -> Iterator[NftRule]:
    """IPv6 by a device of main's default that several uplinks have: bound, unless it goes to main's own router."""
    if devices := inputs.shared & inputs.main_links(Family.V6):
        routers = sorted(
            {f'"{d.link}" . {d.via}' for d in inputs.observed.best_defaults(Family.V6) if d.link in devices}
        )
        if routers:
            text = f"meta nfproto ipv6 {inputs.by_shared} oifname . rt ip6 nexthop != {{ {', '.join(routers)} }}"
            yield NftRule(f"{text} goto shared_bound", "bound to an uplink by address")


def _unbound(inputs: RulesetInput) -> frozenset[str]:
    devices = {u.interface for u in inputs.config.uplinks.values()}
    return inputs.main_links(Family.V4) & devices


def addresses(inputs: RulesetInput) -> dict[Key, str]:
    """The uplinks by their own IPv4 addresses; one that two of them have tells nothing."""
    return _by_address(
        tuple(
            (name, own_addresses(uplink, inputs.config.others(name), inputs.observed, Family.V4))
            for name, uplink in inputs.config.uplinks.items()
        )
    )


@remembered
def _by_address(known: tuple[tuple[str, tuple[IPInterface, ...]], ...]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for name, addresses in known:
        for address in addresses:
            found[str(address.ip)] = "" if str(address.ip) in found else f"goto to_{name}"
    return {address: verdict for address, verdict in found.items() if verdict}


def kept(inputs: RulesetInput) -> dict[Key, str]:
    """Uplinks that keep what may have chosen them by address: those of main's default, while they live."""
    lost = inputs.selection.dead | inputs.selection.down
    by_device = {u.interface: name for name, u in inputs.config.uplinks.items() if name not in inputs.config.sharing}
    alone = {d: by_device[d] for d in _unbound(inputs) if d in by_device}
    found: dict[Key, str] = {d: f"goto to_{name}" for d, name in alone.items() if (name, Family.V4) not in lost}
    return found | dict.fromkeys(staying(inputs), "goto shared_kept")


def staying(inputs: RulesetInput) -> frozenset[str]:
    """Devices that several uplinks have, and by which main's default leaves in IPv4."""
    return inputs.shared & inputs.main_links(Family.V4)
