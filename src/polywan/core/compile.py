"""Compile configuration, world and selection into everything the kernel should hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polywan.config import Config
from polywan.core.allocate import Numbers, allocate, numbers
from polywan.core.net import FAMILIES, IPAddress, MarkLayout, TableId
from polywan.core.observed import Observed
from polywan.core.plan import DesiredState
from polywan.core.reach import Reach, UplinkFamily
from polywan.core.routing import build_routes, build_rules, routings
from polywan.core.ruleset import RulesetInput, build
from polywan.core.select import Selection
from polywan.core.tuning import build_sysctls


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives the daemon; `daemon/store.py` keeps it.

    Attributes:
        ids: number of every uplink, those no longer configured included.
        gateways: last known next hop per uplink and family.
        originals: values that kernel settings had before polywan's first write, by path.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    gateways: Mapping[UplinkFamily, IPAddress] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)


def layout_of(config: Config) -> MarkLayout:
    """Return the mark bits that the configuration gives us."""
    return MarkLayout(config.global_.mark_mask)


def numbers_of(config: Config, ids: Mapping[str, int]) -> dict[str, Numbers]:
    """Return mark, table and priorities of every configured uplink.

    Raises:
        CapacityError: more uplinks than marks.
    """
    layout = layout_of(config)
    given = allocate(config.uplinks, ids, layout)
    return {
        name: numbers(given[name], layout, table_base=config.global_.table_base, priority=config.global_.priority)
        for name in config.uplinks
    }


def compile_state(
    config: Config,
    given: Mapping[str, Numbers],
    retired: frozenset[int],
    observed: Observed,
    reach: Mapping[UplinkFamily, Reach],
    selection: Selection,
    current: Mapping[str, str],
) -> DesiredState:
    """Return the whole desired state; the same inputs give the same state, every time.

    Args:
        config: the file.
        given: mark, table and priorities of those configured, from `numbers_of`.
        retired: marks of uplinks that were removed; connections that still carry one have nowhere to go.
        observed: the world.
        reach: how each uplink can be used.
        selection: who serves which policy.
        current: present kernel settings.
    """
    layout = layout_of(config)
    fallback = TableId(config.global_.table_base)
    devices = {name: uplink.interface for name, uplink in config.uplinks.items()}
    sources = {name: uplink.source for name, uplink in config.uplinks.items()}
    table = build(
        RulesetInput(
            config=config,
            layout=layout,
            numbers=given,
            selection=selection,
            retired=retired,
            own=observed.own_ipv4(),
            main_links={family: observed.main_default_links(family) for family in FAMILIES},
        )
    )
    uplinks = routings(reach, given, devices, sources)
    families = tuple(sorted({family for _, family in reach}))
    return DesiredState(
        routes=build_routes(uplinks, families, fallback),
        rules=build_rules(uplinks, families, layout, config.global_.priority, fallback),
        nft=table,
        sysctls=tuple(build_sysctls(config, observed, current)),
    )
