"""What the parts of polywan's table are built from, and the words that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeAlias

from polywan.core.identity import remembered
from polywan.core.marks import Numbers
from polywan.core.net import UNBOUND_SOURCE, Family, MarkLayout
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.ruleset.model import Key, NftMap, NftRule, NftSet
from polywan.core.world.lookups import NOTHING, Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily, unbound_links
from polywan.core.world.world import World

ROOM: Final = "size 512;"
"""Declared size of sets and maps: with it the kernel takes its faster kind of hash (nft(8), set types)."""

ADDRESSES: Final = 4096
"""Addresses for which there is always room; with more of them the room is a power of two."""


Devices: TypeAlias = tuple[tuple[str, str, int], ...]
"""Device, name and mark of the uplinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetInput:
    """What the table depends on.

    Attributes:
        config: the file, with the numbers of uplinks and policies.
        world: what is there.
        selection: who serves which policy.
        lookups: what rules refer to outside of the file.
        unbound_source: the box's own TCP that is bound to nothing has a source that no uplink has
            (`core/routing/first_route.py`).
        words: marks with bits of ours that policy rules of others compare as a whole, per family.
    """

    config: Resolved
    world: World
    selection: Selection
    lookups: Lookups = NOTHING
    unbound_source: bool = False
    words: Mapping[Family, tuple[int, ...]] = field(default_factory=dict)

    @property
    def layout(self) -> MarkLayout:
        """The bits of marks that are ours."""
        return self.config.layout

    @property
    def numbers(self) -> Mapping[str, Numbers]:
        """Mark, table and priorities of the uplinks."""
        return self.config.numbers

    @property
    def policy_marks(self) -> Mapping[str, Numbers]:
        """Numbers of the policies that carry a mark of their own."""
        return self.config.policy_marks

    @property
    def observed(self) -> Observed:
        """The devices, addresses, routes and rules that are there."""
        return self.world.observed

    @property
    def reach(self) -> Mapping[UplinkFamily, Reach]:
        """How each uplink can be used."""
        return self.world.reach

    @property
    def shared(self) -> frozenset[str]:
        """Devices that several uplinks have."""
        return frozenset(self.config.uplinks[name].interface for name in self.config.sharing)

    @property
    def by_shared(self) -> str:
        """Match what leaves by one of them."""
        devices = ", ".join(f'"{device}"' for device in sorted(self.shared))
        return f"oifname {{ {devices} }}"

    def main_links(self, family: Family) -> frozenset[str]:
        """Return the links by which main's own default leaves.

        There a socket that was bound to its uplink cannot be told from one that was not.
        """
        return unbound_links(self.observed, self.reach, self.numbers, family)


GOTO_UNMARKED: Final = "goto unmarked"
"""Verdict that leaves a packet alone: the chain takes off the mark that `classify` asked its question with."""


def words_of(inputs: RulesetInput) -> tuple[int, ...]:
    """Return the whole-word marks of others that have bits of ours, of both families."""
    return tuple(sorted({word for words in inputs.words.values() for word in words}))


def by_mark(device: str, mark: int, layout: MarkLayout) -> str:
    """Match what leaves by a device with the mark of one of the uplinks that share it."""
    return f'oifname "{device}" ct mark & {layout.mask:#010x} == {mark:#010x}'


def restored(layout: MarkLayout, words: Iterable[int]) -> tuple[NftRule, ...]:
    """Return the rules that put back what our bits have taken from a mark of others, once these are off."""
    return tuple(
        NftRule(f"meta mark {word & layout.keep:#010x} meta mark set {word:#010x}", "another program's mark, whole")
        for word in words
    )


def room_for(count: int) -> str:
    """Return the declared size of a set of addresses, so large that it rarely has to change."""
    return f"size {max(ADDRESSES, 1 << (count - 1).bit_length())};"


@remembered
def device_sets(devices: tuple[tuple[str, bool], ...]) -> dict[str, NftSet]:
    """Return the sets of the uplinks' devices, which come with whether segment sizes are clamped."""
    uplinks: frozenset[Key] = frozenset(device for device, _ in devices)
    return {
        "uplinks": NftSet(f"type ifname; {ROOM}", uplinks),
        # Loopback carries the resets that this box sends to its own sockets.
        "outside_ifs": NftSet(f"type ifname; {ROOM}", uplinks | {"lo"}),
        "uplink_routes": NftSet(f"typeof fib daddr oifname; {ROOM}", uplinks),
        "clamped": NftSet(f"type ifname; {ROOM}", frozenset(device for device, clamped in devices if clamped)),
    }


@remembered
def own_set(addresses: frozenset[IPv4Address], *, unbound: bool) -> NftSet:
    """Return the set of the addresses of this box; `unbound`: with the source of TCP that is bound to nothing."""
    own = frozenset(map(str, addresses | ({UNBOUND_SOURCE} if unbound else set())))
    return NftSet(f"type ipv4_addr; {room_for(len(own))}", own)


SHARED: Final = "shared_"
"""Beginning of the chains for devices that several uplinks have (`shared_devices.py`)."""


@remembered
def device_maps(devices: Devices, policies: tuple[tuple[int, str], ...], shared: frozenset[str]) -> dict[str, NftMap]:
    """Return the maps from uplinks' devices and marks, and from the marks of policies, to chains.

    Args:
        devices: the uplinks.
        policies: mark and name of those that have a mark.
        shared: devices that several uplinks have.
    """
    restore: dict[Key, str] = {mark: f"goto to_{name}" for _, name, mark in devices}
    restore |= {mark: f"goto by_{policy}" for mark, policy in policies}
    return {
        "restore": NftMap(f"type mark : verdict; {ROOM}", restore),
        "arrival": _by_device(devices, "to_", shared, "arrival"),
        "guards": _by_device(devices, "guard_", shared, "guard"),
    }


@remembered
def bound_map(devices: Devices, main: frozenset[str], shared: frozenset[str]) -> NftMap:
    """Return the map from the uplinks' devices that main's default does not use."""
    return _by_device(tuple(one for one in devices if one[0] not in main), "to_", shared, "bound")


def _by_device(devices: Devices, chain: str, shared: frozenset[str], question: str) -> NftMap:
    verdicts: dict[Key, str] = {
        d: f"goto {SHARED}{question}" if d in shared else f"goto {chain}{name}" for d, name, _ in devices
    }
    return NftMap(f"type ifname : verdict; {ROOM}", verdicts)
