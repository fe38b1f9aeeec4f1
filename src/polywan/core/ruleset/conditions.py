"""What a rule asks of a packet, each condition once: as nft(8) text for the kernel, and as a test for the tracer.

Both must say the same of every packet. A condition on something that a packet does not have (the user of a forwarded
one) does not hold, in the kernel as well: nft ends the rule there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Network, collapse_addresses
from itertools import product
from operator import attrgetter
from typing import Final

from polywan.config import Match, Owner
from polywan.config.kinds.addresses import PortRange
from polywan.config.kinds.matches import DSCP
from polywan.config.model.steering_rule import WITH_PORTS
from polywan.core.net import FAMILIES, Family, IPAddress, IPNetwork
from polywan.core.packet import Packet
from polywan.core.resolved import Resolved
from polywan.core.ruleset.model import TABLE
from polywan.core.ruleset.windows import window_texts, within
from polywan.core.world import prefix_lists
from polywan.core.world.lookups import Lookups, PrefixList

NUMBERS: Final[Mapping[str, tuple[int, ...]]] = {
    "tcp": (6,),
    "udp": (17,),
    "icmp": (1, 58),
    "sctp": (132,),
    "gre": (47,),
    "esp": (50,),
}
"""Protocols by the file's name (IANA numbers); each family has an ICMP of its own, and the user means both."""

_IN_NFT: Final[Mapping[str, str]] = {"icmp": "{ icmp, icmpv6 }", "gre": "47"}
"""Those that nft calls otherwise. What it does not know it looks up in /etc/protocols, which small systems lack."""

MOST_ADDRESSES: Final = 4096
"""Addresses that the set of a rule's domains has room for, in each family."""

_ALL_BITS: Final = 0xFFFF_FFFF
_CODES: Final = {number: name for name, number in DSCP.items() if name != "be"}
# How nft writes these differs from how Python does, and nobody can be reached at such an address.
_UNREACHABLE: Final = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """One condition of a rule.

    Attributes:
        key: as in the file ("to").
        words: as a person reads it ("to = 10.0.0.0/8"). Paths and names in it are the user's own: not for nft.
        alternatives: nft texts by family, see `texts`.
        test: whether a packet of a family with a text meets it.
        version: changes with what the kernel looks up while it reads the text, and the text does not show.
    """

    key: str
    words: str
    alternatives: Mapping[Family, tuple[str, ...]]
    test: Callable[[Packet], bool]
    version: str = ""

    def texts(self, family: Family) -> tuple[str, ...]:
        """Return nft matches of which one must hold; "" always does, and without any the condition never holds."""
        return self.alternatives.get(family, ())

    def holds(self, packet: Packet) -> bool:
        """True when the packet meets it."""
        return bool(self.texts(packet.family)) and self.test(packet)


def conditions(match: Match, protocol: str | None, lookups: Lookups, keep: int = _ALL_BITS) -> tuple[Condition, ...]:
    """Return the conditions of a match: what the file gives, no more.

    Args:
        match: of a rule, or its `not`.
        protocol: the rule's, by which ports are read.
        lookups: what is known of lists, domains, control groups and local time.
        keep: bits of the packet mark that belong to others; only texts need it, since a `Packet` has no other bits.
    """
    found = (
        _networks("from", match.from_, "saddr", attrgetter("source")),
        _networks("to", match.to, "daddr", attrgetter("destination")),
        _interfaces(match.in_interface),
        _protocol(match.protocol),
        _ports("source_port", match.source_port, protocol, "sport", attrgetter("source_port")),
        _ports("port", match.port, protocol, "dport", attrgetter("port")),
        _dscp(match.dscp),
        _mac(match.mac),
        _fwmark(match, keep),
        _owner("user", match.user, "skuid", attrgetter("user")),
        _owner("group", match.group, "skgid", attrgetter("group")),
        _cgroup(match.cgroup, lookups),
        _domains(match.domains, lookups),
        _lists(match.list_, lookups),
        _time(match, lookups),
        _family(match),
    )
    return tuple(condition for condition in found if condition is not None)


def match_lines(wanted: Sequence[Condition]) -> tuple[str, ...]:
    """Return nft matches of which one holds exactly when all conditions do.

    One serves both families where nothing depends on the family; otherwise each names its own.
    """
    lines = {
        family: tuple(" ".join(filter(None, parts)) for parts in product(*(c.texts(family) for c in wanted)))
        for family in FAMILIES
    }
    if len(set(lines.values())) == 1:
        return lines[FAMILIES[0]]
    return tuple(f"meta nfproto {f.nfproto} {text}".strip() for f in FAMILIES for text in lines[f])


def _both(*texts: str) -> dict[Family, tuple[str, ...]]:
    return dict.fromkeys(FAMILIES, texts)


def _listed(key: str, values: Iterable[object]) -> str:
    return f"{key} = {', '.join(map(str, values))}"


def _networks(
    key: str, networks: Sequence[IPNetwork], word: str, of: Callable[[Packet], IPAddress]
) -> Condition | None:
    if not networks:
        return None
    texts = {}
    for family in FAMILIES:
        own = [n for n in networks if n.version == family]
        if family.default in own:
            texts[family] = ("",)
        elif own:
            # nft refuses overlapping intervals in one set.
            merged = collapse_addresses(own)  # type: ignore[type-var]  # one family
            texts[family] = (f"{family.header} {word} {{ {', '.join(map(str, merged))} }}",)
    return Condition(
        key=key, words=_listed(key, networks), alternatives=texts, test=lambda p: any(of(p) in n for n in networks)
    )


def _interfaces(devices: Sequence[str]) -> Condition | None:
    if not devices:
        return None
    names = ", ".join(f'"{name}"' for name in devices)
    return Condition(
        key="in_interface",
        words=_listed("in_interface", devices),
        alternatives=_both(f"iifname {{ {names} }}"),
        test=lambda p: p.in_interface in devices,
    )


def _protocol(name: str | None) -> Condition | None:
    if name is None:
        return None
    return Condition(
        key="protocol",
        words=f"protocol = {name}",
        alternatives=_both(f"meta l4proto {_IN_NFT.get(name, name)}"),
        test=lambda p: p.protocol in NUMBERS[name],
    )


def _ports(
    key: str, ports: Sequence[PortRange], protocol: str | None, word: str, of: Callable[[Packet], int | None]
) -> Condition | None:
    if not ports:
        return None
    spans = [f"{low}" if low == high else f"{low}-{high}" for low, high in ports]

    def test(packet: Packet) -> bool:
        port = of(packet)
        return (
            packet.protocol in NUMBERS[protocol or ""]
            and port is not None
            and any(low <= port <= high for low, high in ports)
        )

    known = protocol in WITH_PORTS
    texts = _both(f"{protocol} {word} {{ {', '.join(spans)} }}") if known else {}
    return Condition(key=key, words=_listed(key, spans), alternatives=texts, test=test)


def _dscp(codes: Sequence[int]) -> Condition | None:
    if not codes:
        return None
    numbers = ", ".join(map(str, sorted(codes)))
    return Condition(
        key="dscp",
        words=_listed("dscp", (_CODES.get(code, code) for code in codes)),
        alternatives={family: (f"{family.header} dscp {{ {numbers} }}",) for family in FAMILIES},
        test=lambda p: p.dscp in codes,
    )


def _mac(addresses: Sequence[str]) -> Condition | None:
    if not addresses:
        return None
    return Condition(
        key="mac",
        words=_listed("mac", addresses),
        alternatives=_both(f"ether saddr {{ {', '.join(addresses)} }}"),
        test=lambda p: p.mac in addresses,
    )


def _fwmark(match: Match, keep: int) -> Condition | None:
    """Bits of others; a mark without a mask means all of theirs, since chain `classify` has ours set while it asks."""
    if match.fwmark is None:
        return None
    value, mask = match.fwmark.value, match.fwmark.mask & keep
    possible = mask != 0 and value & ~keep == 0
    return Condition(
        key="fwmark",
        words=f"fwmark = {value:#x}" if match.fwmark.mask == _ALL_BITS else f"fwmark = {match.fwmark}",
        alternatives=_both(f"meta mark & {mask:#010x} == {value:#010x}") if possible else {},
        test=lambda p: p.mark & mask == value,
    )


def _owner(key: str, owners: Sequence[Owner], word: str, of: Callable[[Packet], int | None]) -> Condition | None:
    if not owners:
        return None
    numbers = sorted({owner.id for owner in owners})
    return Condition(
        key=key,
        words=_listed(key, (owner.name for owner in owners)),
        alternatives=_both(f"meta {word} {{ {', '.join(map(str, numbers))} }}"),
        test=lambda p: of(p) in numbers,
    )


def _cgroup(paths: Sequence[str], lookups: Lookups) -> Condition | None:
    if not paths:
        return None
    known = {path: lookups.cgroups[path] for path in paths if path in lookups.cgroups}

    def test(packet: Packet) -> bool:
        group = packet.cgroup
        return group is not None and any(group == path or group.startswith(f"{path}/") for path in known)

    # For a forwarded packet the kernel would look for a socket of this box on the same port.
    texts = [f'iif 0 socket cgroupv2 level {group.level} "{group.path}"' for group in known.values()]
    # The kernel keeps a group by its inode: one made anew under the same name is another.
    version = _digest(str(group.inode) for group in known.values()) if known else ""
    return Condition(
        key="cgroup", words=_listed("cgroup", paths), alternatives=_both(*texts), test=test, version=version
    )


def _domains(names: Sequence[str], lookups: Lookups) -> Condition | None:
    """Addresses that polywan resolved, or that the box's dnsmasq has put into a set; only the former can be tested."""
    if not names:
        return None
    return Condition(
        key="domains",
        words=_listed("domains", names),
        alternatives={
            family: tuple(f"{family.header} daddr @{name(names, family)}" for name in (domain_set, dns_set))
            for family in FAMILIES
        },
        test=lambda p: str(p.destination) in addresses_of(names, lookups, p.family),
    )


def _lists(paths: Sequence[str], lookups: Lookups) -> Condition | None:
    if not paths:
        return None
    known = [lookups.lists[path] for path in paths if path in lookups.lists]
    sets = {f: dict.fromkeys(list_set(found, f) for found in known if found.of(f)) for f in FAMILIES}
    return Condition(
        key="list",
        words=_listed("list", paths),
        alternatives={f: tuple(f"{f.header} daddr @{name}" for name in sets[f]) for f in FAMILIES},
        test=lambda p: any(prefix_lists.holds(found, p.destination) for found in known),
    )


def _time(match: Match, lookups: Lookups) -> Condition | None:
    if not match.time:
        return None
    offset = lookups.utc_offset
    return Condition(
        key="time",
        words=_listed("time", match.time),
        alternatives=_both(*window_texts(match.time, offset, lookups.kernel_west)),
        test=lambda p: within(match.time, p.at + offset),
    )


def _family(match: Match) -> Condition | None:
    if match.family is None:
        return None
    return Condition(
        key="family",
        words=f"family = {match.family}",
        alternatives={family: ("",) for family in FAMILIES if family.nfproto == match.family},
        test=lambda p: p.family.nfproto == match.family,
    )


def domain_set(names: Iterable[str], family: Family) -> str:
    """Name of the set of addresses that polywan has resolved for these domains."""
    return f"domains_{family}_{_digest(sorted(names))}"


def dns_set(names: Iterable[str], family: Family) -> str:
    """Name of the set that the box's dnsmasq fills for these domains, subdomains included."""
    return f"dns_{family}_{_digest(sorted(names))}"


def list_set(found: PrefixList, family: Family) -> str:
    """Name of the set of a file's prefixes; other contents are another set."""
    return f"list_{family}_{found.digest}"


def addresses_of(names: Iterable[str], lookups: Lookups, family: Family) -> frozenset[str]:
    """Return the addresses of these domains as nft writes them, `MOST_ADDRESSES` at most."""
    known = {a for name in names for a in lookups.domains.get(name, ()) if a.version == family}
    usable = (a for a in known if isinstance(a, IPv4Address) or not any(a in n for n in _UNREACHABLE))
    return frozenset(map(str, sorted(usable, key=int)[:MOST_ADDRESSES]))


def domain_sets(match: Match) -> tuple[str, ...]:
    """Return the names of the sets that dnsmasq may fill for a match, IPv4's first; none without domains."""
    return tuple(dns_set(match.domains, family) for family in FAMILIES) if match.domains else ()


def dnsmasq_lines(config: Resolved) -> list[str]:
    """Return lines for dnsmasq's configuration by which it fills the sets of the rules' domains (dnsmasq(8) nftset).

    dnsmasq takes the longest domain that fits a name, and only that one: so a subdomain's line names the sets of the
    domains above it, too.
    """
    matches = [m for rule in config.rules for m in (rule, rule.not_) if m.domains]
    lines = []
    for name in sorted({name for match in matches for name in match.domains}):
        above = {name[i:] for i in range(len(name)) if i == 0 or name[i - 1] == "."}
        sets = dict.fromkeys(s for match in matches if above & set(match.domains) for s in domain_sets(match))
        places = ",".join(f"{s.split('_')[1]}#{TABLE.replace(' ', '#')}#{s}" for s in sets)
        lines.append(f"nftset=/{name}/{places}")
    return lines


def _digest(parts: Iterable[str]) -> str:
    return blake2s(" ".join(parts).encode(), digest_size=4).hexdigest()
