"""The first route of the box's own TCP: how a socket that is bound to nothing shows it.

The kernel routes a packet of this box before any chain sees it. Chain `output` must know whether main's own default has
decided, which is ours to balance, or a socket that is bound to the very link of that default. A TCP socket is routed
twice when it connects, and the second time it looks as if it were bound to the address that the first route gave it. So
the default that decides TCP last is a copy of main's in a table of ours, with a preferred source that no uplink has;
translation makes it the uplink's. Not so for other protocols: a server on all addresses must not answer with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from polywan.config import Config
from polywan.core.allocate import Numbers
from polywan.core.net import TABLE_LOCAL, TABLE_MAIN, UNBOUND_SOURCE, Family, TableId
from polywan.core.observed import DefaultRoute, Observed
from polywan.core.reach import Path, Reach, UplinkFamily
from polywan.core.routing import DEFAULT_METRIC, Route, first_table


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


def has_source(config: Config, observed: Observed) -> bool:
    """True when the box's own TCP may begin with a source that no uplink has: whoever carries it translates.

    Not beside IPsec, whose policies know the box by its real addresses, nor beside rules of the file that do.
    """
    devices = (uplink.interface for uplink in config.uplinks.values())
    own = [address.ip for device in devices for address in observed.addresses_of(device, Family.V4)]
    asked = (network for rule in config.rules for match in (rule, rule.not_) for network in match.from_)
    named = any(UNBOUND_SOURCE not in network and any(address in network for address in own) for network in asked)
    return not observed.ipsec and not named and all(uplink.nat != "none" for uplink in config.uplinks.values())


def first_routes(
    config: Config,
    observed: Observed,
    ways: Mapping[UplinkFamily, Reach],
    numbers: Mapping[str, Numbers],
    fallback: TableId,
) -> frozenset[Route]:
    """Return the copy of main's best default for TCP, and what makes its source this box's own.

    There is none while main's default leaves by no uplink. Without a default in main, that of the uplink with the
    lowest number serves, as in the fallback table.
    """
    if not has_source(config, observed):
        return frozenset()
    devices = {u.interface for u in config.uplinks.values()}
    found = {numbers[name].id: way for (name, f), way in ways.items() if f is Family.V4 and name in numbers}
    paths = [way for _, way in sorted(found.items(), key=lambda item: item[0]) if isinstance(way, Path)]
    best = main_default(observed, Family.V4)
    if best is not None and best.link not in devices:
        return frozenset()
    # Of several routers on the link, the one that is in use.
    used = next((path for path in paths if best is None or path.link == best.link), None)
    if used is None and best is None:
        return frozenset()
    link, via = (used.link, used.via) if used is not None else (best.link, best.via) if best is not None else ("", None)
    copy = Route(
        family=Family.V4,
        table=first_table(fallback),
        metric=DEFAULT_METRIC,
        link=link,
        via=via,
        onlink=used is not None and used.onlink,
        source=UNBOUND_SOURCE,
    )
    return frozenset({copy, Route(family=Family.V4, table=TABLE_LOCAL, metric=0, link="lo", local=UNBOUND_SOURCE)})
