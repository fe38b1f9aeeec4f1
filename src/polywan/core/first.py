"""The first route of the box's own packets: how it tells who has decided it.

The kernel routes a packet of this box before any chain sees it. Chain `output` must know whether main's own default has
decided, which is ours to balance, or anything else: a bound socket, a specific route, a rule of another program. So the
default that decides last is a copy of main's in a table of ours, with a realm, which nft reads (``rt classid``). The
copy is a route of its own: the kernel keeps one cached route for all that share a next hop and its realm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from polywan.core.net import TABLE_MAIN, Family, TableId
from polywan.core.observed import DefaultRoute, Observed
from polywan.core.reach import Path, Reach, UplinkFamily
from polywan.core.routing import DEFAULT_METRIC, REALM_FIRST, Route, first_table


def main_default(observed: Observed, family: Family) -> DefaultRoute | None:
    """Return main's best default that serves every source, the first next hop of several; None when there is none.

    Without any whose link has a carrier it is the best of the others, which the kernel passes over meanwhile.
    """
    links = observed.main_default_links(family)
    main = [d for d in observed.defaults if d.family is family and d.table == TABLE_MAIN and d.source is None]
    return min(main, key=lambda d: (d.link not in links, d.metric), default=None)


def ours_to_balance(observed: Observed, devices: Collection[str], family: Family) -> bool:
    """True when what main's default decides is polywan's: it leaves by an uplink, or there is none."""
    links = observed.main_default_links(family)
    return not links or not links.isdisjoint(devices)


def first_routes(
    observed: Observed, ways: Mapping[UplinkFamily, Reach], devices: Collection[str], fallback: TableId
) -> frozenset[Route]:
    """Return the copy of main's best default that carries our realm; nothing while main's leaves by no uplink."""
    best = main_default(observed, Family.V4)
    if best is None or best.link not in devices or not observed.realms:
        return frozenset()
    paths = (way for (_, f), way in ways.items() if f is Family.V4 and isinstance(way, Path) and way.link == best.link)
    onlink = any(path.onlink for path in paths if path.via == best.via)
    return frozenset(
        {
            Route(
                family=Family.V4,
                table=first_table(fallback),
                metric=DEFAULT_METRIC,
                link=best.link,
                via=best.via,
                onlink=onlink,
                realm=REALM_FIRST,
            )
        }
    )
