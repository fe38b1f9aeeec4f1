"""Judge every link of a machine: is it an uplink, is it not, or does only its owner know? With the reason for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from shlex import quote
from typing import Final, Literal, NamedTuple, TypeAlias

from polywan.config.kinds.addresses import Device as DeviceName
from polywan.core.detection.kinds import (
    TUNNELS,
    Device,
    Hardware,
    address_with_hosts,
    is_of_containers,
    is_ppp,
    is_template,
    mobile,
)
from polywan.core.net import FAMILIES, TABLE_MAIN, Family, IPAddress, family_of
from polywan.core.words import counted, listed, printable
from polywan.core.world.leases import Lease
from polywan.core.world.observed import DefaultRoute, Link, Observed
from polywan.core.world.paths import membership, routers_of

Verdict: TypeAlias = Literal["uplink", "not", "ask"]

_SLOW_PORT: Final = 100
"""Mbit/s of a port that is probably slower than its line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is thought of one link.

    Attributes:
        verdict: "ask" where only its owner can tell.
        why: the evidence, in a sentence.
        presumed: the answer to "ask" when nobody is there to be asked.
        gateways: its routers, where it has several: each is an uplink of its own.
        metered: why its volume probably costs money; empty when nothing is known to.
        note: what else to know of it, or to do; may be empty.
        lan: the networks behind it, when it leads to a LAN.
    """

    link: str
    verdict: Verdict
    why: str
    presumed: bool = False
    gateways: tuple[IPAddress, ...] = ()
    metered: str = ""
    note: str = ""
    lan: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen of a machine: its links in the order of their indices, and what is not worth a line of its own."""

    seen: tuple[Seen, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[Seen, ...]:
        """Those that are uplinks, or may be."""
        return tuple(seen for seen in self.seen if seen.verdict != "not")

    @property
    def lans(self) -> tuple[str, ...]:
        """The LANs behind this box, such as ``br-lan (192.168.15.0/24)``."""
        return tuple(f"{seen.link} ({', '.join(seen.lan)})" for seen in self.seen if seen.lan)


class _World(NamedTuple):
    observed: Observed
    hardware: Hardware
    leases: Mapping[str, Lease]

    def device(self, link: Link) -> Device:
        return self.hardware.devices.get(link.name, Device())

    def defaults(self, link: Link) -> tuple[DefaultRoute, ...]:
        return tuple(d for family in FAMILIES for d in self.observed.defaults_of(link.name, family))


def survey(observed: Observed, hardware: Hardware, leases: Mapping[str, Lease]) -> Survey:
    """Judge every link.

    Args:
        observed: the world as the kernel shows it.
        hardware: what is known beside.
        leases: by link, what DHCP clients wrote down, with a default route or without.
    """
    world = _World(observed, hardware, leases)
    seen, passed_over = [], []
    for link in sorted(observed.links.values(), key=lambda link: link.index):
        if _is_idle(link, world):
            passed_over.append(printable(link.name))
            continue
        found = next(found for judge in _JUDGES if (found := judge(link, world)) is not None)
        # Names of links and drivers come from others, and are in most sentences.
        seen.append(replace(found, link=printable(found.link), why=printable(found.why), note=printable(found.note)))
    return Survey(tuple(seen), tuple(passed_over))


def _is_idle(link: Link, world: _World) -> bool:
    """True for what nobody wonders about: the loopback, unused devices of modules, the ends of containers' cables."""
    if link.name == "lo":
        return True
    used = any(world.observed.addresses_of(link.name, family) for family in FAMILIES) or world.defaults(link)
    if used or link.name in world.leases or link.name in world.hardware.sessions:
        return False
    if is_template(link) or link.kind in {"dummy", "ifb", "nlmon"}:
        return not link.master
    return link.kind == "veth" and (not link.master or any(map(is_of_containers, world.observed.masters_of(link))))


_Judge: TypeAlias = Callable[[Link, _World], Seen | None]


def _nameless(link: Link, _: _World) -> Seen | None:
    if DeviceName(loopback=False).takes(link.name):
        return None
    why = "its name cannot be written in the file"
    return Seen(link=link.name, verdict="not", why=why, note="rename it: ip link set … name …")


def _member(link: Link, world: _World) -> Seen | None:
    if not (why := membership(link, world.observed)):
        return None
    what, _, cure = why.removeprefix(f"{link.name} ").partition(": name ")
    return _no(link, f"{what}, which counts in its place" if cure else what)


def _containers(link: Link, _: _World) -> Seen | None:
    return _no(link, "a bridge of containers or virtual machines") if is_of_containers(link) else None


def _tunnel(link: Link, world: _World) -> Seen | None:
    if link.kind not in TUNNELS:
        return None
    kind = "VPN" if link.kind in {"wireguard", "amneziawg", "tun", "ovpn", "ovpn-dco"} else "tunnel"
    why = f"a {kind} ({link.kind}): it needs an uplink itself"
    halves = [part for part in world.observed.parts if part.link == link.name and part.table == TABLE_MAIN]
    if halves or any(d.table == TABLE_MAIN for d in world.defaults(link)):
        what = listed(sorted({str(part.to) for part in halves})) or "the default route"
        return _no(link, f"{why}; it has taken {what} of main", "what it takes is not balanced; see `polywan check`")
    note = f'to use it all the same, add an uplink with interface = "{link.name}", and rules or a tier for it'
    return _no(link, why, note)


def _session(link: Link, world: _World) -> Seen | None:
    """Judge a PPP link: PPPoE, a modem, a VPN, or a client that has dialled in."""
    if not is_ppp(link):
        return None
    hardware, defaults = world.hardware, world.defaults(link)
    addresses = world.observed.addresses_of(link.name, Family.V4)
    if link.name in hardware.l2tp:
        return _no(link, "a VPN (L2TP): it needs an uplink itself")
    if not defaults and _is_client(link, world):
        mine = str(addresses[0].ip)
        return Seen(link=link.name, verdict="not", why=f"a client that has dialled in here ({mine})", lan=(mine,))
    if not addresses and not defaults and not world.observed.addresses_of(link.name, Family.V6):
        return _no(link, "a PPP session without an address", "run init again when it is connected")
    carried = f"PPPoE session over {listed(sorted(set(hardware.sessions)))}"
    peer = f"has the address {addresses[0].ip}" if addresses else "has IPv6 only"
    if hardware.sessions and (defaults or _free_sessions(world) > 0):
        why = f"{carried}, {_routes(link, world) if defaults else f'{peer}, and no default route, which is enough'}"
        if not defaults and addresses and addresses[0].ip.is_private and not _is_shared_space(addresses[0]):
            return Seen(link=link.name, verdict="ask", presumed=True, why=f"{why}, or a client that has dialled in")
        return _yes(link, why)
    if hardware.serial:
        modem = f"dial-up by a modem ({listed(hardware.serial)})"
        return Seen(link=link.name, verdict="uplink", why=f"{modem}, {peer}", metered=modem)
    no_session = "a PPP session that is neither PPPoE nor a modem's, so probably a VPN (PPTP, SSTP)"
    if not defaults:
        return _no(link, no_session)
    if any(d.link != link.name and not _is_ppp_name(d.link, world) for d in world.observed.defaults):
        return Seen(link=link.name, verdict="ask", why=f"{no_session}, {_routes(link, world)}")
    return _yes(link, f"a PPP session, {_routes(link, world)}")


def _is_ppp_name(name: str, world: _World) -> bool:
    link = world.observed.links.get(name)
    return link is None or is_ppp(link) or link.kind in TUNNELS


def _is_shared_space(address: object) -> bool:
    """Carriers give 100.64.0.0/10 to their customers (RFC 6598); some versions of Python call that private."""
    return isinstance(address, IPv4Interface) and address.ip.packed[0] == 100


def _is_client(link: Link, world: _World) -> bool:
    """True where this end has an address that another link of this box has, too, as a server's ends have."""
    own = {a.ip for a in world.observed.addresses_of(link.name, Family.V4)}
    holders = Counter(a.ip.ip for a in world.observed.addresses)
    return any(holders[address] > 1 for address in own)


def _free_sessions(world: _World) -> int:
    """Return how many PPPoE sessions are not those of links that a default route shows to be uplinks."""
    links = [link for link in world.observed.links.values() if is_ppp(link) and link.name not in world.hardware.l2tp]
    return len(world.hardware.sessions) - sum(1 for link in links if world.defaults(link))


def _mobile(link: Link, world: _World) -> Seen | None:
    device = world.device(link)
    if not (what := mobile(link, device)):
        return None
    defaults, lease = world.defaults(link), world.leases.get(link.name)
    addressed = any(world.observed.addresses_of(link.name, family) for family in FAMILIES)
    if not addressed and not defaults:
        return _no(link, f"{what}, not connected: it has no address", "connect it, and run init again")
    how = _routes(link, world) if defaults else _leased(lease) if lease else "has an address"
    note = "an Ethernet adapter may have this driver, too" if device.driver in {"cdc_ncm", "cdc_ether"} else ""
    return Seen(link=link.name, verdict="uplink", why=f"{what}, {how}", metered=what, note=note)


def _routed(link: Link, world: _World) -> Seen | None:
    defaults = world.defaults(link)
    if not defaults:
        return None
    addressed = any(world.observed.addresses_of(link.name, family) for family in FAMILIES)
    local = [a for a in world.observed.addresses if a.link == link.name and family_of(a.ip) is Family.V4]
    if not addressed and all(d.via is None for d in defaults) and local:
        return _no(link, f"has only the link-local address {local[0].ip.ip}", "is there a DHCP server on it?")
    routers = _several(link, world)
    why = f"{_routes(link, world)}{_medium(link, world)}"
    note = _note(link, world)
    if len(routers) > 1:
        why = f"{len(routers)} routers ({listed([str(r) for r in routers])}): each is an uplink"
    return Seen(link=link.name, verdict="uplink", why=why, note=note, gateways=routers)


def _several(link: Link, world: _World) -> tuple[IPAddress, ...]:
    """Return a link's IPv4 routers where there are several, as far as the link's addresses say whose they are."""
    networks = [a.network for a in world.observed.addresses_of(link.name, Family.V4)]
    found = routers_of(link, Family.V4, world.observed)
    near = tuple(r for r in found if any(r in n for n in networks) and not world.observed.owns(r))
    return near if len(near) > 1 and not link.point_to_point else ()


def _medium(link: Link, world: _World) -> str:
    return ", by Wi-Fi" if world.device(link).devtype == "wlan" else ""


def _note(link: Link, world: _World) -> str:
    if not link.usable:
        return "it has no carrier at present"
    speed = world.device(link).speed
    return f"its port runs at {speed} Mbit/s, so the line gets no more" if 0 < speed <= _SLOW_PORT else ""


def _leased_link(link: Link, world: _World) -> Seen | None:
    if (lease := world.leases.get(link.name)) is None:
        return None
    why = f"{_leased(lease)}, and no default route, which is enough{_medium(link, world)}"
    return _yes(link, why, _note(link, world) or "give each DHCP link a metric of its own")


def _leased(lease: Lease) -> str:
    return f"{lease.program} got the router {lease.router}"


def _carrier(link: Link, world: _World) -> Seen | None:
    if link.name not in world.hardware.sessions:
        return None
    return _no(link, "carries a PPPoE session, which is the uplink")


def _network(link: Link, world: _World) -> Seen | None:
    """Judge a link with an address and no way to the Internet: a LAN, unless the address is a provider's."""
    if not link.up or link.point_to_point:
        return None
    addresses = (address_with_hosts(link, world.observed, family) for family in FAMILIES)
    found = [address.network for address in addresses if address is not None]
    if not found:
        return None
    if family_of(found[0]) is Family.V4 and not found[0].is_private:
        why = f"the network {found[0]} looks like a provider's, but nothing names a router: no default route, no lease"
        return _no(link, why, "if it is an uplink, give it a default route, with a metric of its own")
    networks = tuple(str(network) for network in found)
    return Seen(link=link.name, verdict="not", why=f"a LAN: {listed(networks)}, and no router", lan=networks)


def _bare(link: Link, world: _World) -> Seen:
    """Judge what is left: no route, no lease, no network."""
    vlans = [other.name for other in world.observed.links.values() if other.parent == link.index]
    if any(world.observed.addresses_of(link.name, family) for family in FAMILIES):
        return _no(link, "has an address, and nothing names a router: no default route, no lease")
    if vlans:
        return _no(link, f"carries {listed(vlans)}")
    if not link.up:
        return _no(link, "is down", f"ip link set {quote(link.name)} up")
    if not link.carrier:
        return _no(link, "has no carrier: is a cable plugged in?")
    return _no(link, "has no address", "if it is an uplink, let a DHCP client run on it, then run init again")


_JUDGES: Final[tuple[_Judge, ...]] = (
    *(_nameless, _member, _containers, _tunnel, _session, _mobile),
    *(_routed, _leased_link, _carrier, _network, _bare),
)
"""In this order; the first that knows the link decides, and the last knows all."""


def _yes(link: Link, why: str, note: str = "") -> Seen:
    return Seen(link=link.name, verdict="uplink", why=why, note=note)


def _no(link: Link, why: str, note: str = "") -> Seen:
    return Seen(link=link.name, verdict="not", why=why, note=note)


def _routes(link: Link, world: _World) -> str:
    """Say by which default route a link is known to be an uplink, once for each family."""
    return " and ".join(_route(world.observed.defaults_of(link.name, family)) for family in _with_default(link, world))


def _with_default(link: Link, world: _World) -> Iterator[Family]:
    yield from (family for family in FAMILIES if world.observed.defaults_of(link.name, family))


def _route(routes: tuple[DefaultRoute, ...]) -> str:
    best = routes[0]
    word = f"IPv{best.family.value} default route"
    via = f" by {best.via}" if best.via is not None else ""
    where = "" if best.table == TABLE_MAIN else f" in table {best.table}"
    heard = ", advertised" if best.advertised else ""
    more = f" and {counted(len(routes) - 1, 'more')}".removesuffix("s") if len(routes) > 1 else ""
    return f"{word}{via}{where}{heard}{more}"
