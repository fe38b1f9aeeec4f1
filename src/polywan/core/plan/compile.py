"""Compile configuration, world and selection into everything the kernel should hold."""

from __future__ import annotations

from polywan.core.net import FAMILIES, TableId
from polywan.core.plan.plan import DesiredState
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.routing.ahead import ahead_of
from polywan.core.routing.first_route import first_routes, has_source
from polywan.core.routing.nexthops import build_nexthops, multipath
from polywan.core.routing.policy_rules import build_rules
from polywan.core.routing.routes import build_routes, dormant, routings
from polywan.core.routing.second_lock import locks
from polywan.core.routing.sysctls import build_sysctls
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.table import build
from polywan.core.shaping.shapers import build_shapers
from polywan.core.world.lookups import Lookups
from polywan.core.world.world import World


def compile_state(config: Resolved, world: World, selection: Selection, lookups: Lookups) -> DesiredState:
    """Return the whole desired state; the same inputs give the same state, every time.

    Args:
        config: the file, with the numbers of uplinks and policies.
        world: what is there.
        selection: who serves which policy.
        lookups: what rules refer to outside of the file.
    """
    observed, reach = world.observed, world.reach
    fallback = TableId(config.global_.table_base)
    ahead = ahead_of(observed.rules, config.layout, config.marks, config.global_.priority)
    devices = {name: uplink.interface for name, uplink in config.uplinks.items()}
    sources = {name: uplink.source for name, uplink in config.uplinks.items()}
    table = build(
        RulesetInput(
            config=config,
            world=world,
            selection=selection,
            lookups=lookups,
            unbound_source=has_source(config, observed),
            words={family: ahead.words(family) for family in FAMILIES},
        )
    )
    uplinks = routings(reach, config.numbers, devices, sources, config.sharing)
    policies = multipath(config, reach, selection)
    families = tuple(sorted({family for _, family in reach}))
    routes = build_routes(uplinks, policies, families, fallback, first_routes(config, observed, reach, fallback))
    priority = config.global_.priority
    return DesiredState(
        nexthops=build_nexthops(policies),
        routes=routes,
        dormant=dormant(routes, observed),
        rules=build_rules(uplinks, policies, families, config.layout, priority, fallback, ahead, locks(config)),
        nft=table,
        sysctls=build_sysctls(config, observed, reach, world.sysctls),
        shapers=build_shapers(config, observed, world.queues),
    )
