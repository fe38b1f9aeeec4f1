"""Compile configuration, world and selection into everything the kernel should hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from polywan.config import Config
from polywan.core.admin import Order
from polywan.core.ahead import ahead_of
from polywan.core.allocate import Numbers, allocate, numbers
from polywan.core.band import build_rules
from polywan.core.first import first_routes, has_source
from polywan.core.given import RulesetInput
from polywan.core.lock import locks
from polywan.core.lookups import Lookups
from polywan.core.net import FAMILIES, IPAddress, MarkLayout, TableId
from polywan.core.nexthops import build_nexthops, multipath
from polywan.core.observed import Observed
from polywan.core.outages import Outages
from polywan.core.plan import DesiredState
from polywan.core.reach import Reach, UplinkFamily, unbound_links
from polywan.core.routing import build_routes, dormant, routings
from polywan.core.ruleset import build
from polywan.core.select import Selection, marked_policies
from polywan.core.tuning import build_sysctls

POLICY: Final = "policy:"
"""Prefix of policies among the remembered numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives the daemon; `daemon/store.py` keeps it.

    Attributes:
        mask: bits of marks that are ours; None when they are not in use, or an older version wrote this.
        ids: number of every uplink and of policies that need one, those no longer configured included.
        devices: network device of every uplink in `ids`; `core/renaming.py` tells by it what became of a name.
        gateways: last known next hop per uplink and family.
        originals: values that kernel settings had before polywan's first write, by path.
        orders: what people have said about uplinks by hand, those no longer configured included.
        drains: since when uplinks are left by themselves, Unix seconds.
        outages: when each uplink was lost, and for how long.
        unsure: what settings had before was lost once: those that are not in `originals` may be polywan's all the same.
    """

    mask: int | None = None
    ids: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    gateways: Mapping[UplinkFamily, IPAddress] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    drains: Mapping[UplinkFamily, float] = field(default_factory=dict)
    outages: Outages = field(default_factory=dict)
    unsure: bool = False


def layout_of(config: Config) -> MarkLayout:
    """Return the mark bits that the configuration gives us."""
    return MarkLayout(config.global_.mark_mask)


def numbers_of(config: Config, ids: Mapping[str, int]) -> dict[str, Numbers]:
    """Return mark, table and priorities of every configured uplink.

    Raises:
        CapacityError: more uplinks than marks.
    """
    return _derived(config, ids, config.uplinks)


def policy_marks_of(config: Config, ids: Mapping[str, int]) -> dict[str, Numbers]:
    """Return mark, table and priorities of the policies that have a number of their own, by the policy's name."""
    found = _derived(config, ids, map(policy_id, marked_policies(config)))
    return {name.removeprefix(POLICY): number for name, number in found.items()}


def policy_id(policy: str) -> str:
    """Return the name under which a policy's number is remembered; no uplink can have it."""
    return POLICY + policy


def numbered(config: Config) -> list[str]:
    """Return every name that needs a number: uplinks, then policies."""
    return [*config.uplinks, *map(policy_id, marked_policies(config))]


def _derived(config: Config, ids: Mapping[str, int], names: Iterable[str]) -> dict[str, Numbers]:
    layout = layout_of(config)
    allocated = allocate(numbered(config), ids, layout)
    base, priority = config.global_.table_base, config.global_.priority
    return {name: numbers(allocated[name], layout, table_base=base, priority=priority) for name in names}


def compile_state(
    config: Config,
    numbers: Mapping[str, Numbers],
    retired: frozenset[int],
    observed: Observed,
    reach: Mapping[UplinkFamily, Reach],
    selection: Selection,
    current: Mapping[str, str],
    *,
    policy_marks: Mapping[str, Numbers],
    lookups: Lookups,
) -> DesiredState:
    """Return the whole desired state; the same inputs give the same state, every time.

    Args:
        config: the file.
        numbers: mark, table and priorities of those configured, from `numbers_of`.
        retired: marks of uplinks that were removed; connections that still carry one have nowhere to go.
        observed: the world.
        reach: how each uplink can be used.
        selection: who serves which policy.
        current: present kernel settings.
        policy_marks: numbers of policies, from `policy_marks_of`.
        lookups: what rules refer to outside of the file.
    """
    layout = layout_of(config)
    fallback = TableId(config.global_.table_base)
    marks = {int(number.mark) for number in (*numbers.values(), *policy_marks.values())}
    ahead = ahead_of(observed.rules, layout, marks, config.global_.priority)
    devices = {name: uplink.interface for name, uplink in config.uplinks.items()}
    sources = {name: uplink.source for name, uplink in config.uplinks.items()}
    table = build(
        RulesetInput(
            config=config,
            layout=layout,
            numbers=numbers,
            policy_marks=policy_marks,
            selection=selection,
            retired=retired,
            own=observed.own_ipv4(),
            lookups=lookups,
            observed=observed,
            reach=reach,
            unbound_source=has_source(config, observed),
            words={family: ahead.words(family) for family in FAMILIES},
            main_links={family: unbound_links(observed, reach, numbers, family) for family in FAMILIES},
        )
    )
    uplinks = routings(reach, numbers, devices, sources)
    policies = multipath(config, policy_marks, numbers, reach, selection)
    families = tuple(sorted({family for _, family in reach}))
    first = first_routes(config, observed, reach, numbers, fallback)
    routes = build_routes(uplinks, policies, families, fallback, first)
    return DesiredState(
        nexthops=build_nexthops(policies),
        routes=routes,
        dormant=dormant(routes, observed),
        rules=build_rules(uplinks, policies, families, layout, config.global_.priority, fallback, ahead, locks(config)),
        nft=table,
        sysctls=tuple(build_sysctls(config, observed, reach, current)),
    )
