"""Nexthop objects and resilient groups (ip-nexthop(8)): how the kernel spreads the connections of a multipath policy.

The policy's mark leads to a table of its own, whose default names a group::

    mark of P ──▶ table of P ──▶ default nhid GROUP ──▶ bucket of the packet's hash ──▶ nexthop of X

Only first packets come this way. The guard of the link that they leave by gives the connection that uplink's mark,
so the group decides about new connections and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Final, NewType, TypeAlias

from polywan.core.marks import Numbers
from polywan.core.net import Family, IPAddress, family_of
from polywan.core.policy.selection import Choice, Selection
from polywan.core.resolved import Resolved
from polywan.core.world.paths import Path, Reach, UplinkFamily

NexthopId = NewType("NexthopId", int)

FIRST: Final = 1_900_000_000
"""Where our ids begin. The kernel counts those it gives out itself from 1, as people and FRR's zebra do; FRR's
protocols stay below 2^28, and its Ethernet segments have bit 28 or bit 29 alone. With all three upper bits set, and
round in decimal because ip(8) shows them so, nobody else's are near, and none of them have to be asked about."""

_PER_FAMILY: Final = 1_000
_PER_KIND: Final = 10_000

NEXTHOP_IDS: Final = range(FIRST, FIRST + 2 * _PER_KIND)
"""Every id of ours: FIRST, 1000 for each IP version, and the uplink's id; for groups 10000 more and the policy's id."""

BUCKETS: Final = 1024
"""Parts that a group is dealt out in: shares are exact to one of them, as with slots (`balance.MAX_SLOTS`). The
kernel refuses another number for a group that stands, so a change of it needs another band of ids."""

BUCKET_IDLE: Final = 0
"""For how long (in 1/100 s) a bucket must have been quiet before it may move to an uplink that has too few. Established
connections do not need buckets to stay, and with any patience a busy bucket would never come back after a loss."""

MOST_WEIGHT: Final = 255
"""Largest weight that every kernel with groups takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nexthop:
    """One uplink's way out in one family, for groups to refer to (protocol 200).

    The kernel deletes it without a word when its device goes down or loses its carrier, and takes it out of groups.

    Attributes:
        family: that of `via`, or without one that of the packets.
        via: next hop; None on point-to-point links.
        onlink: the next hop is not covered by a connected route; reach it anyway (RTNH_F_ONLINK).
    """

    id: NexthopId
    family: Family
    link: str
    via: IPAddress | None = None
    onlink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NexthopGroup:
    """Nexthops that share by weight, in a resilient group (protocol 200).

    When its last nexthop goes, the kernel deletes the group, and every route by it.

    Attributes:
        members: (nexthop, weight) in order of ids; never empty.
        buckets, idle: as `BUCKETS` and `BUCKET_IDLE`; both 0 when the group is not a resilient one.
    """

    id: NexthopId
    members: tuple[tuple[NexthopId, int], ...]
    buckets: int = BUCKETS
    idle: int = BUCKET_IDLE


NexthopObject: TypeAlias = Nexthop | NexthopGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRouting:
    """What the routing of a multipath policy depends on.

    Attributes:
        shares: by family, the nexthops that serve now, and their weights; none while the last resort applies.
    """

    numbers: Numbers
    shares: tuple[tuple[Family, tuple[tuple[Nexthop, int], ...]], ...]

    def group(self, family: Family) -> NexthopGroup | None:
        """The group of a family, or None while nobody serves in it."""
        members = next((share for f, share in self.shares if f is family), ())
        if not members:
            return None
        weights = scaled(tuple(weight for _, weight in members))
        hops = (hop.id for hop, _ in members)
        return NexthopGroup(
            id=group_id(self.numbers.id, family), members=tuple(sorted(zip(hops, weights, strict=True)))
        )

    def spares(self, family: Family) -> Iterator[tuple[int, Nexthop]]:
        """Yield the serving nexthops of a family, each with its uplink's number."""
        for f, share in self.shares:
            if f is family:
                yield from ((hop.id % _PER_FAMILY, hop) for hop, _ in share)


def nexthop_id(uplink: int, family: Family) -> NexthopId:
    """Id of an uplink's nexthop in one family, from the uplink's number."""
    return NexthopId(FIRST + _PER_FAMILY * family + uplink)


def group_id(policy: int, family: Family) -> NexthopId:
    """Id of a policy's group in one family, from the policy's number."""
    return NexthopId(FIRST + _PER_KIND + _PER_FAMILY * family + policy)


def scaled(weights: tuple[int, ...]) -> tuple[int, ...]:
    """Return weights in the same proportions, each from 1 to `MOST_WEIGHT`; rounded when that cannot be exact."""
    common = gcd(*weights)
    reduced = [weight // common for weight in weights]
    top = max(reduced)
    if top <= MOST_WEIGHT:
        return tuple(reduced)
    return tuple(max(1, round(weight * MOST_WEIGHT / top)) for weight in reduced)


def multipath(config: Resolved, reach: Mapping[UplinkFamily, Reach], selection: Selection) -> tuple[PolicyRouting, ...]:
    """Gather what the routing of every multipath policy depends on.

    Args:
        config: the file.
        reach: how each uplink can be used.
        selection: who serves which policy.
    """
    if not config.policy_marks:
        return ()
    return tuple(
        PolicyRouting(
            numbers=config.policy_marks[name],
            shares=tuple(
                (family, tuple(_serving(choice, family, config.numbers, reach)))
                for (chosen, family), choice in selection.choices.items()
                if chosen == name
            ),
        )
        for name, policy in config.policies.items()
        if policy.algorithm == "multipath" and name in config.policy_marks
    )


def _serving(
    choice: Choice, family: Family, numbers: Mapping[str, Numbers], reach: Mapping[UplinkFamily, Reach]
) -> Iterator[tuple[Nexthop, int]]:
    for name, weight in choice.members:
        path = reach.get((name, family))
        if not isinstance(path, Path):
            continue
        hop = Nexthop(
            id=nexthop_id(numbers[name].id, family),
            family=family if path.via is None else family_of(path.via),
            link=path.link,
            via=path.via,
            onlink=path.onlink,
        )
        yield hop, weight


@lru_cache(maxsize=4)
def build_nexthops(policies: tuple[PolicyRouting, ...]) -> frozenset[NexthopObject]:
    """Return the nexthops that serve some policy, and every policy's groups."""
    hops = {hop for policy in policies for _, share in policy.shares for hop, _ in share}
    groups = {policy.group(family) for policy in policies for family, _ in policy.shares}
    return frozenset(hops | {group for group in groups if group is not None})
