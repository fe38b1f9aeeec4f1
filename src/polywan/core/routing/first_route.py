"""The first route of the box's own TCP: how a socket that is bound to nothing shows it.

The kernel routes a packet of this box before any chain sees it. Chain `output` must know whether main's own default has
decided, which is ours to balance, or a socket that is bound to the very link of that default. A TCP socket is routed
twice when it connects, and the second time it looks as if it were bound to the address that the first route gave it. So
the defaults that decide TCP last are copies of main's in a table of ours, with a preferred source that no uplink has;
translation makes it the uplink's. Not so for other protocols: a server on all addresses must not answer with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from polywan.core.identity import remembered
from polywan.core.net import TABLE_LOCAL, TABLE_MAIN, UNBOUND_SOURCE, Family, IPAddress, IPInterface, TableId
from polywan.core.resolved import Resolved
from polywan.core.routing.routes import DEFAULT_METRIC, Route, first_table
from polywan.core.world.observed import DefaultRoute, Observed
from polywan.core.world.paths import NoPath, Path, Reach, UplinkFamily


def copied(observed: Observed, devices: Collection[str], family: Family) -> tuple[DefaultRoute, ...]:
    """Return main's defaults that serve every source and leave by an uplink, best first, one for each link.

    Those behind another link's that has a carrier are left out: there the other one decides.
    """
    main = [d for d in observed.defaults if d.family is family and d.table == TABLE_MAIN and d.source is None]
    found: dict[str, DefaultRoute] = {}
    for default in sorted(main, key=lambda d: d.metric):
        if default.link in devices:
            found.setdefault(default.link, default)
        elif (link := observed.links.get(default.link)) is not None and link.usable:
            break
    return tuple(found.values())


def ours_to_balance(observed: Observed, devices: Collection[str], family: Family) -> bool:
    """True when what main's default decides is polywan's: it leaves by an uplink, or there is none."""
    links = observed.main_default_links(family)
    return not links or not links.isdisjoint(devices)


def has_source(config: Resolved, observed: Observed) -> bool:
    """True when the box's own TCP may begin with a source that no uplink has: whoever carries it translates.

    Not beside IPsec, whose policies know the box by its real addresses, nor beside rules of the file that do.
    """
    return not observed.ipsec and _translates(config, observed.by_link)


@remembered
def _translates(config: Resolved, addresses: Mapping[tuple[str, Family], tuple[IPInterface, ...]]) -> bool:
    """True when every uplink translates, and no rule of the file knows the box by one of its addresses."""
    asked = [network for rule in config.rules for match in (rule, rule.not_) for network in match.from_]
    devices = (uplink.interface for uplink in config.uplinks.values()) if asked else ()
    own = [address.ip for device in devices for address in addresses.get((device, Family.V4), ())]
    named = any(UNBOUND_SOURCE not in network and any(address in network for address in own) for network in asked)
    return not named and all(uplink.nat != "none" for uplink in config.uplinks.values())


def first_routes(
    config: Resolved,
    observed: Observed,
    reachable: Mapping[UplinkFamily, Reach],
    fallback: TableId,
) -> frozenset[Route]:
    """Return the copies of main's defaults for TCP, and what makes their source this box's own.

    The kernel passes over those without a carrier as over main's own, so nothing is written when one is lost. There is
    none while main's default leaves by no uplink. Without a default in main, the uplinks serve by number, as in the
    fallback table.
    """
    if not has_source(config, observed):
        return frozenset()
    found = {
        config.numbers[name].id: reached
        for (name, f), reached in reachable.items()
        if f is Family.V4 and name in config.numbers
    }
    paths = [
        path
        for _, reached in sorted(found.items(), key=lambda item: item[0])
        if (path := reached.path if isinstance(reached, NoPath) else reached) is not None
    ]
    shared = {config.uplinks[name].interface for name in config.sharing}
    return _copies(tuple(_hops(observed, {u.interface for u in config.uplinks.values()}, paths, shared)), fallback)


@remembered
def _copies(hops: tuple[tuple[str, IPAddress | None, bool], ...], fallback: TableId) -> frozenset[Route]:
    copies = {
        Route(
            family=Family.V4,
            table=first_table(fallback),
            metric=DEFAULT_METRIC + place,
            link=link,
            via=via,
            onlink=onlink,
            source=UNBOUND_SOURCE,
        )
        for place, (link, via, onlink) in enumerate(hops)
    }
    own = {Route(family=Family.V4, table=TABLE_LOCAL, metric=0, link="lo", local=UNBOUND_SOURCE)}
    return frozenset(copies | own if copies else ())


def _hops(
    observed: Observed, devices: Collection[str], paths: Sequence[Path], shared: Collection[str]
) -> Iterator[tuple[str, IPAddress | None, bool]]:
    """Yield link, next hop and whether it is on-link, of each route to be made, best first."""
    if not any(d.family is Family.V4 and d.table == TABLE_MAIN and d.source is None for d in observed.defaults):
        yield from ((path.link, path.via, path.onlink) for path in paths)
    # Of several routers on the link, the one that is in use; where each has an uplink, the one that main says.
    in_use = {path.link: path for path in reversed(paths) if path.link not in shared}
    by_router = {(path.link, path.via): path for path in paths}
    for default in copied(observed, devices, Family.V4):
        path = in_use.get(default.link) or by_router.get((default.link, default.via))
        yield (
            (path.link, path.via, path.onlink)
            if path is not None
            else (default.link, default.via, _onlink(observed, default))
        )


def _onlink(observed: Observed, default: DefaultRoute) -> bool:
    """True when the router is in no network of the link."""
    networks = (a.network for a in observed.addresses_of(default.link, Family.V4))
    return default.via is not None and not any(default.via in network for network in networks)
