"""Compile configuration, world and selection into everything the kernel should hold."""

from __future__ import annotations

from collections.abc import Mapping

from polywan.config import Config
from polywan.core.marks import Numbers
from polywan.core.net import FAMILIES, TableId
from polywan.core.plan.plan import DesiredState
from polywan.core.policy.numbering import layout_of
from polywan.core.policy.selection import Selection
from polywan.core.routing.ahead import ahead_of
from polywan.core.routing.first_route import first_routes, has_source
from polywan.core.routing.nexthops import build_nexthops, multipath
from polywan.core.routing.policy_rules import build_rules
from polywan.core.routing.routes import build_routes, dormant, routings
from polywan.core.routing.second_lock import locks
from polywan.core.routing.sysctls import build_sysctls
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.table import build
from polywan.core.world.lookups import Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily, unbound_links


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
