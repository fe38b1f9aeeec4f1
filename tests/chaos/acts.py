"""How each action is carried out in the lab, and what the router's kernel looks like."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from itertools import product
from typing import Final

from chaos.load import INBOUND_PORT, KEPT_IN
from chaos.plan import Action, Kind, Settings
from polywan.core.health.life import ONSET
from polywan.core.net import FAMILIES, Family, IPInterface
from polywan.lab import recipe
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import SERVERS, Topology
from support.busy_lines import shape, uplink_tables

TABLE: Final = "inet chaos"
"""The nft table of each provider that counts what is kept in, notes foreign sources, and loses echo requests."""
_WORDS: Final = {Family.V4: "ip", Family.V6: "ip6"}

INTERVAL, TIMEOUT, FALL, RISE, HOLD_DOWN, HOLD_MAX = 0.3, 0.5, 3, 3, 1.0, 2.0
"""Probing of the daemon under test, in seconds and rounds."""

FLOOD: Final = ONSET + 1.0
"""Seconds by which the death of a line that is being filled may be noticed later; see docs/design/health.md."""

_HEALTH: Final = f"""interval = "{1000 * INTERVAL:.0f}ms"
timeout = "{1000 * TIMEOUT:.0f}ms"
fall = {FALL}
rise = {RISE}
hold_down = "{1000 * HOLD_DOWN:.0f}ms"
hold_down_max = "{1000 * HOLD_MAX:.0f}ms"
slow_start = "0s"
degraded_loss = "100%"
recovered_loss = "99%"
tcp_port = {ECHO_PORT}
"""
_FOREIGN: Final = """table inet other { chain keep { type filter hook forward priority 0; policy accept; }
}
"""
_TUNNEL_RULES: Final = ("not fwmark 0xca6c lookup 77", "lookup main suppress_prefixlength 0")
"""What wg-quick(8) adds, ahead of everybody's rules; its table has no route yet, so nothing must change."""
_TUNNEL_MARKS: Final = "table inet marks"
_SHOWN: Final = (
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "nexthop"),
    ("nft", "-s", "list", "ruleset"),
)
_PASSED: Final = re.compile(r"(set (?:asked|answered) \{[^}]*?)\s*elements = \{[^}]*\}")
"""Connections that are on their way to the fast path (`core/ruleset/fast_path.py`)."""
_LINK_KEYS: Final = ("rp_filter", "ignore_routes_with_linkdown", "arp_ignore", "arp_announce")
_KEYS: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/accept_local")


def config_text(topology: Topology, settings: Settings, *, both_methods: bool) -> str:
    """Return a configuration of the daemon under test."""
    targets = ", ".join(f'"{address}"' for family in FAMILIES for address in SERVERS[family])
    names = ", ".join(f'"{uplink.name}"' for uplink in topology.uplinks)
    lines = [
        "[global]\nforwarding = true\n",
        f"[health]\ntargets = [{targets}]",
        f"methods = {['icmp', 'tcp'] if both_methods else ['icmp']}",
        _HEALTH,
    ]
    for uplink, weight in zip(topology.uplinks, settings.weights, strict=True):
        lines += [f"[uplinks.{uplink.name}]", f'interface = "{uplink.interface}"', f"weight = {weight}", ""]
    lines += ["[policies.default]", f'algorithm = "{settings.algorithm}"', f"tiers = [[{names}]]"]
    lines += ["affinity = {}"] if settings.affinity else []
    lines += ["", "[[rules]]", _to(KEPT_IN), 'protocol = "udp"', 'only = ["isp1"]', ""]
    lines += uplink_tables(topology.uplinks)
    if settings.favourite:
        lines += ["[[rules]]", _to(1), f'uplink = "isp{settings.favourite}"', ""]
    return "\n".join(lines)


def _to(index: int) -> str:
    addresses = ", ".join(f'"{SERVERS[family][index]}"' for family in FAMILIES)
    return f"to = [{addresses}]"


def furnish(lab: Lab) -> None:
    """Add what a run needs: counters of the providers, things of other programs, a forwarded port."""
    for name in lab.topology.providers:
        Namespace(name).nft(_provider_table(lab.topology, name))
    lab.router.ip(["rule add pref 5000 fwmark 0x40000/0xc0000 lookup 52", "route add 192.0.2.0/24 dev lan0 table 52"])
    _others_tables(lab)
    _acquaint(lab)


def _acquaint(lab: Lab) -> None:
    """Tell providers and servers of each other for good: their ARP would wait in the queues, and fail for real."""
    for number, name in enumerate(lab.topology.providers, 1):
        ends = ((lab.server, f"x{number}"), (Namespace(name), "core"))
        for (here, device), (there, far) in (ends, ends[::-1]):
            mac = json.loads(there.run(["ip", "-j", "link", "show", far]).stdout)[0]["address"]
            known = json.loads(there.run(["ip", "-j", "address", "show", far]).stdout)[0]["addr_info"]
            here.ip(f"neighbour replace {a['local']} lladdr {mac} dev {device} nud permanent" for a in known)


def _others_tables(lab: Lab) -> None:
    """Make the tables of other programs, which a flush of the rule set takes as well."""
    lab.router.nft(_FOREIGN)
    lab.forward_port(INBOUND_PORT, INBOUND_PORT)


def _provider_table(topology: Topology, name: str) -> str:
    customers = [u for u in topology.uplinks if u.provider == name]
    lines = [f"table {TABLE} {{"]
    lines += [f"counter forbidden{u.number} {{ }}" for u in customers]
    lines += [
        "set echo4 { type ipv4_addr; flags interval; }",
        "set echo6 { type ipv6_addr; flags interval; }",
    ]
    for u in customers:
        for family, word in _WORDS.items():
            lines += [f"set foreign{family:d}_{u.number} {{ typeof {_asked(word)}; flags dynamic; size 512; }}"]
    lines += ["chain arriving { type filter hook prerouting priority -10; policy accept;"]
    for u in customers:
        for family, word in _WORDS.items():
            right = f"{u.addresses[family].allowed}{', fe80::/10, ::' if family is Family.V6 else ''}"
            odd = f'iifname "wan" ether saddr {u.mac} {word} saddr != {{ {right} }}'
            lines += [f"{odd} update @foreign{family:d}_{u.number} {{ {_asked(word)} }}"]
            what = f"udp dport {ECHO_PORT} {word} daddr {SERVERS[family][KEPT_IN]}"
            lines += [f'iifname "wan" ether saddr {u.mac} {what} counter name forbidden{u.number}']
    lines += [
        "}",
        "chain passing { type filter hook forward priority 10; policy accept;",
        "ip saddr @echo4 icmp type echo-request drop; ip6 saddr @echo6 icmpv6 type echo-request drop; }",
        "}",
    ]
    return "\n".join([*lines, ""])


def _asked(word: str) -> str:
    # Ports, and what has the flags of TCP: they tell what kind of packet it was.
    return f"{word} saddr . {word} daddr . meta l4proto . @th,0,32 . @th,96,16"


def foreign(lab: Lab) -> dict[int, frozenset[str]]:
    """Return by uplink what came with a source that its provider did not give out, for people."""
    found: dict[int, frozenset[str]] = {}
    for name in lab.topology.providers:
        family, table = TABLE.split()
        listing = json.loads(Namespace(name).run(["nft", "-j", "list", "table", family, table]).stdout)
        for item in listing["nftables"]:
            one = item.get("set", {})
            if one.get("name", "").startswith("foreign"):
                number = int(one["name"].partition("_")[2])
                packets = frozenset(_packet(*element["concat"]) for element in one.get("elem", ()))
                found[number] = found.get(number, frozenset()) | packets
    return found


def _packet(source: str, destination: str, protocol: str | int, ports: int, flags: int) -> str:
    kind = "".join(letter for bit, letter in enumerate("FSRPA") if flags >> bit & 1) if protocol == "tcp" else ""
    return f"{protocol} {kind} {source}:{ports >> 16} to {destination}:{ports & 0xFFFF}".replace("  ", " ")


def forbidden(lab: Lab) -> dict[int, int]:
    """Return how many packets of the class kept in each uplink carried, without the one that may."""
    counts: dict[str, int] = {}
    for name in lab.topology.providers:
        counts |= Namespace(name).counters(TABLE)
    return {u.number: counts[f"forbidden{u.number}"] for u in lab.topology.uplinks if u.number != 1}


def lose_echo(lab: Lab, number: int, *, lose: bool) -> None:
    """Let a provider drop echo requests, or pass them again."""
    uplink = lab.topology.uplink(number)
    verb = "add" if lose else "delete"
    lines = [f"{verb} element {TABLE} echo{f:d} {{ {a.allowed} }}" for f, a in uplink.addresses.items()]
    lab.provider(number).nft("\n".join([*lines, ""]))


def readdress(lab: Lab, number: int, host: int) -> None:
    """Exchange an uplink's addresses as a DHCP client does whose lease was not renewed."""
    old = lab.topology.uplink(number)
    new = replace(old, addresses={f: replace(a, own=_with_host(a.own, host)) for f, a in old.addresses.items()})
    if new == old:
        return
    uplinks = tuple(new if u.number == number else u for u in lab.topology.uplinks)
    lab.topology = replace(lab.topology, uplinks=uplinks)
    if lab.topology.trunk:
        neighbours = (a.own.ip for a in new.addresses.values())
        lab.provider(number).ip(f"neighbour replace {ip} lladdr {new.mac} dev wan nud permanent" for ip in neighbours)
    # An address that is added beside the old one would go with it (promote_secondaries, ip-sysctl).
    gone = [f"address del {a.own} dev {old.interface}" for a in old.addresses.values()]
    lab.router.ip([*gone, *recipe.bring_up(new)])


def _with_host(own: IPInterface, host: int) -> IPInterface:
    address = ip_address(int(own.network.network_address) + host)
    return (IPv4Interface if address.version == 4 else IPv6Interface)((address, own.network.prefixlen))


def tunnel(lab: Lab, *, there: bool) -> None:
    """Add rules and marks as VPN clients and shapers have them, or delete them."""
    verb = "add" if there else "del"
    for side, rule in product(("-4", "-6"), _TUNNEL_RULES):
        lab.router.run(["ip", side, "rule", verb, *rule.split()])
    chain = "type filter hook prerouting priority -150; policy accept;"
    come = f'{_TUNNEL_MARKS} {{ chain shaper {{ {chain} iifname "lan0" meta mark set 0x1; }}\n}}\n'
    # Somebody may have flushed the rule set meanwhile.
    lab.router.nft(come if there else f"{_TUNNEL_MARKS} {{ }}\ndelete {_TUNNEL_MARKS}\n")


def change(lab: Lab, action: Action, table: int) -> float:
    """Carry out an action on the network or the kernel; return when it was done."""
    number = action.uplink
    match action.kind:
        case Kind.CUT:
            return lab.cut(number)
        case Kind.LINK_DOWN:
            return lab.router.set_link(lab.topology.uplink(number).interface, up=False)
        case Kind.RESTORE | Kind.LINK_UP:
            if not lab.topology.trunk:
                # The kernel has taken it from the provider's end, which cannot look for new neighbours without it.
                lab.provider(number).ip(["address replace fe80::1/64 dev wan nodad"])
            return lab.restore(number)
        case Kind.SILENCE:
            return lab.blackhole(number)
        case Kind.ANSWERS:
            return lab.unblackhole(number)
        case Kind.ECHO_LOST | Kind.ECHO_BACK:
            lose_echo(lab, number, lose=action.kind is Kind.ECHO_LOST)
        case Kind.READDRESS:
            readdress(lab, number, action.host)
        case Kind.REMAKE:
            lab.router.ip(recipe.remake(lab.topology.uplink(number)))
        case Kind.FLUSH_TRACKING:
            lab.router.run(["conntrack", "-F"])
        case Kind.TUNNEL_COMES | Kind.TUNNEL_GOES:
            tunnel(lab, there=action.kind is Kind.TUNNEL_COMES)
        case _:
            return tamper(lab, action.kind, table)
    return time.monotonic()


def slow(lab: Lab, action: Action) -> float:
    """Give a provider a slow line with a queue, or take it away with all that waits in it; return when it was done."""
    if action.queue is not None:
        shape(lab.provider(action.uplink), "core", action.queue[0])
    else:
        lab.provider(action.uplink).run(["tc", "qdisc", "delete", "dev", "core", "root"])
    return time.monotonic()


def tamper(lab: Lab, kind: Kind, table: int) -> float:
    """Take something of ours away, as other programs do; return when it was gone."""
    if kind is Kind.FLUSH_NFT:
        lab.router.run(["nft", "flush", "ruleset"])
        gone = time.monotonic()
        _others_tables(lab)
        return gone
    what = ["rule", "flush", "protocol", "200"] if kind is Kind.FLUSH_RULES else ["route", "flush", "table", str(table)]
    lab.router.run(["ip", "-4", *what], check=False)
    lab.router.run(["ip", "-6", *what], check=False)
    return time.monotonic()


def is_back(lab: Lab, kind: Kind, table: int) -> bool:
    """Tell whether what was taken away is there again."""
    if kind is Kind.FLUSH_NFT:
        return lab.router.run(["nft", "list", "chain", "inet", "polywan", "nat"], check=False).returncode == 0
    what = ["rule", "show", "protocol", "200"] if kind is Kind.FLUSH_RULES else ["route", "show", "table", str(table)]
    return all(lab.router.run(["ip", side, *what], check=False).stdout.strip() for side in ("-4", "-6"))


def kernel(lab: Lab) -> dict[str, list[str]]:
    """Return everything of the router's networking that the daemon touches, as lines by where they are from."""
    shown = {" ".join(argv): _plain(lab.router.run(list(argv), check=False).stdout) for argv in _SHOWN}
    paths = [f"ipv4/conf/{u.interface}/{key}" for u in lab.topology.uplinks for key in _LINK_KEYS]
    paths += [f"ipv6/conf/{u.interface}/accept_ra" for u in lab.topology.uplinks]
    return shown | {path: [lab.router.read_sysctl(path)] for path in (*paths, *_KEYS)}


def _plain(text: str) -> list[str]:
    """Drop what comes and goes with packets, and link-local addresses that the kernel makes by itself.

    A macvlan loses these when it first goes down.
    """
    text = _PASSED.sub(r"\1", text)
    return [line.rstrip() for line in text.splitlines() if not ("fe80:" in line and "proto kernel" in line)]


def differences(before: Mapping[str, Iterable[str]], after: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Name every line that one of the two has and the other has not, whatever their order."""
    found = []
    for where in {**before, **after}:
        old, new = sorted(before.get(where, ())), sorted(after.get(where, ()))
        found += [f"- {where}: {line.strip()}" for line in old if line not in new]
        found += [f"+ {where}: {line.strip()}" for line in new if line not in old]
    return tuple(found)


def polywan(lab: Lab, *argv: str) -> tuple[int, str]:
    """Run `polywan VERB …` in the router; return its exit code and output."""
    done = lab.router.run([sys.executable, "-m", "polywan", *argv], check=False)
    return done.returncode, done.stdout or done.stderr
