"""Devices that several uplinks share: there the router tells whose a packet is, and not the device alone.

A packet that leaves has its next hop (nft's `rt nexthop`); one that comes in has the hardware address of the router
that has sent it, and the address that it was sent to. What goes to a host of the link itself, or comes from one, is of
none of them. The maps of devices lead to the chains here; a box without such devices has none of them::

    shared_arrival   came in: whose router, or whose address?
    shared_guard     leaves: is it the router of its mark?
    shared_bound     of a socket that is bound to the device, or to an address of it: by which router?
    shared_kept      likewise, of one that may be bound
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from polywan.core.identity import remembered
from polywan.core.net import FAMILIES, Family, IPAddress, MarkLayout
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.model import Chain, NftRule
from polywan.core.world.paths import NoPath
from polywan.core.world.shared_device import router_mac


class _Sharing(NamedTuple):
    """An uplink that shares its device, in one family.

    Attributes:
        mac: hardware address of its router; empty when it is not known.
        addresses: what it speaks by.
        translates: connections by it have an address of this box.
        serves: it is not down.
    """

    name: str
    mark: int
    device: str
    family: Family
    via: IPAddress
    mac: str
    addresses: tuple[IPAddress, ...]
    translates: bool
    serves: bool


def shared_chains(inputs: RulesetInput, *, kept: Iterable[str], untranslated: NftRule) -> dict[str, Chain]:
    """Return the chains of devices that several uplinks share; none where each uplink has its own.

    Args:
        inputs: what the table depends on.
        kept: devices on which connections without a rule stay that may be bound.
        untranslated: the rule of a guard whose uplink translates.
    """
    if not inputs.config.sharing:
        return {}
    known = tuple(_sharing(inputs))
    return dict(_chains(known, inputs.layout, tuple(sorted(kept)), untranslated))


def _sharing(inputs: RulesetInput) -> Iterator[_Sharing]:
    config = inputs.config
    lost = inputs.selection.dead | inputs.selection.down
    for name in config.uplinks:
        for family in FAMILIES if name in config.sharing else ():
            reached = inputs.reach.get((name, family))
            path = reached.path if isinstance(reached, NoPath) else reached
            if path is None or path.via is None:
                continue
            yield _Sharing(
                name=name,
                mark=int(inputs.numbers[name].mark),
                device=path.link,
                family=family,
                via=path.via,
                mac=router_mac(inputs.observed, path.link, path.via),
                addresses=path.addresses,
                translates=config.uplinks[name].nat != "none",
                serves=(name, family) not in lost,
            )


@remembered
def _chains(
    known: tuple[_Sharing, ...], layout: MarkLayout, kept: tuple[str, ...], untranslated: NftRule
) -> dict[str, Chain]:
    staying = tuple(s for s in known if s.device in kept and s.serves and s.family is Family.V4)
    return {
        "shared_arrival": Chain((*_arrivals(known), NftRule("accept", "from a host of the link itself"))),
        "shared_guard": Chain(tuple(_guard(known, layout, untranslated))),
        "shared_bound": Chain((*_bound(known), NftRule("accept", "to a host of the link, or by no uplink's router"))),
        "shared_kept": Chain((*_bound(staying), NftRule("goto policy_default", "no rule matched"))),
    }


def _arrivals(known: tuple[_Sharing, ...]) -> Iterator[NftRule]:
    """Whose is what comes in: first the router tells, then, where that has no name or several, the address."""
    for family in FAMILIES:
        if found := _elements(
            _sole((s.device, s.mac, s.name) for s in known if s.mac and s.family is family), "goto to_"
        ):
            text = f"meta nfproto {family.nfproto} iifname . ether saddr vmap {{ {found} }}"
            yield NftRule(text, "by the router that has sent it")
    for family in FAMILIES:
        if found := _by_address(known, family):
            text = f"iifname . ct original {family.header} daddr vmap {{ {found} }}"
            yield NftRule(text, "by the address that it was sent to")


def _by_address(known: tuple[_Sharing, ...], family: Family) -> str:
    owned = ((s.device, a, s.name) for s in known if s.family is family for a in s.addresses)
    return _elements(_sole(owned), "goto to_")


def _bound(known: tuple[_Sharing, ...]) -> Iterator[NftRule]:
    """By which uplink does a socket leave that is bound: by that of its address, else by that of its router."""
    for family in FAMILIES:
        if found := _by_address(known, family):
            text = f"oifname . {family.header} saddr vmap {{ {found} }}"
            yield NftRule(text, "by the address that it is bound to")
    yield from _by_router(known, "goto to_")


_Owned: TypeAlias = tuple[str, Hashable, str]
"""A device, an address by it, and whose it is."""


def _sole(owned: Iterable[_Owned]) -> list[_Owned]:
    """Leave out what several uplinks have."""
    found = list(dict.fromkeys(owned))
    owners = Counter((device, key) for device, key, _ in found)
    return [one for one in found if owners[one[:2]] == 1]


def _by_router(known: tuple[_Sharing, ...], verdict: str) -> Iterator[NftRule]:
    for family in FAMILIES:
        first = {(s.device, s.via): s.name for s in reversed(known) if s.family is family}
        if found := _elements(((device, via, name) for (device, via), name in first.items()), verdict):
            yield NftRule(f"oifname . rt {family.header} nexthop vmap {{ {found} }}", "by its router")


def _elements(owned: Iterable[_Owned], verdict: str) -> str:
    return ", ".join(f'"{device}" . {key} : {verdict}{name}' for device, key, name in owned)


def _guard(known: tuple[_Sharing, ...], layout: MarkLayout, untranslated: NftRule) -> Iterator[NftRule]:
    ours = f"ct mark & {layout.mask:#010x}"
    for family in FAMILIES:
        own = ", ".join(f'"{s.device}" . {s.via} . {s.mark:#010x}' for s in known if s.family is family)
        if own:
            yield NftRule(f"oifname . rt {family.header} nexthop . {ours} {{ {own} }} accept", "by its own router")
    yield from _by_router(known, "goto guard_")
    here = dict.fromkeys(f'"{s.device}" . {s.mark:#010x}' for s in known)
    if here:
        yield NftRule(f"oifname . {ours} {{ {', '.join(here)} }} accept", "to a host of the link itself")
    if known and all(s.translates for s in known):
        yield untranslated
    first = {s.device: s.name for s in reversed(known)}
    if first:
        guards = ", ".join(f'"{device}" : goto guard_{name}' for device, name in first.items())
        yield NftRule(f"oifname vmap {{ {guards} }}", "to a host of the link itself")
