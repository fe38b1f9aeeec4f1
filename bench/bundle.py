"""Could one bundle device replace policy rules and tables? Cost beside polywan's, and behaviour with real packets.

Usage: python bench/bundle.py [--only cost|checks] [--rounds 5] [--n 2,53] [--check NAME]

main's default leads to an ifb device whose netdev egress hook hands every packet to the device and the gateway of
its mark (Linux 5.16). The choice and the marks are as polywan's. No policy rule, no table; docs/adr/0017 has the
verdict. The bundle has no daemon here: a check that asks what is left without one kills the portable one first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import dataplane
from bundle_checks import QUESTIONS, ask
from designs import DESIGNS, MARK_MASK, Design, mask_for
from wires import ROUTER, Wires, address, gateway, interface

from polywan.core.net import FAMILIES, Family
from polywan.lab import sandbox
from polywan.lab.network import Lab
from polywan.lab.topology import LAN_ROUTER

BUNDLE_DEVICE: Final = "bundle"
_HOP: Final = {Family.V4: "192.0.0.8", Family.V6: "fe80::b"}
_WORD: Final = {Family.V4: "ip", Family.V6: "ip6"}
_TRACED: Final = 30
"""traceroute(8) asks no further; beyond it nobody misses the hop that `fwd` takes."""


@dataclass(frozen=True, slots=True)
class Way:
    """One uplink: its mark, its device, and per family its own address and the next hop."""

    mark: int
    device: str
    own: dict[Family, str]
    via: dict[Family, str]


def routes(sources: dict[Family, str], mtu: int = 1500) -> Iterator[str]:
    """Yield what ip(8) needs: the device, a next hop that is never asked for, and a default better than any."""
    yield f"link add {BUNDLE_DEVICE} mtu {mtu} type ifb"
    yield f"link set {BUNDLE_DEVICE} addrgenmode none up"
    for family, source in sources.items():
        hop = _HOP[family]
        yield f"neighbour replace {hop} lladdr 02:00:00:00:00:0b dev {BUNDLE_DEVICE} nud permanent"
        yield f"route add {family.default} via {hop} dev {BUNDLE_DEVICE} onlink src {source} metric 1"


def ruleset(ways: Sequence[Way], mask: int, *, hops: bool = True) -> str:
    """Return both tables: polywan's choice without the question and the guards, and the bundle's way out."""
    keep = f"{0xFFFFFFFF ^ mask:#010x}"
    lines = ["table inet bundle {"]
    for n, way in enumerate(ways, 1):
        marks = " ".join(f"{word} mark set {word} mark & {keep} | {way.mark:#x}" for word in ("ct", "meta"))
        lines.append(f"chain to_{n} {{ {marks} accept\n}}")
    lines += _verdicts("restore", "type mark", ((f"{way.mark:#x}", n) for n, way in enumerate(ways, 1)))
    lines += _verdicts("arrival", "type ifname", ((f'"{way.device}"', n) for n, way in enumerate(ways, 1)))
    chosen = []
    for family in FAMILIES:
        able = [(n, way) for n, way in enumerate(ways, 1) if family in way.own]
        kind = f"type ipv{family:d}_addr"
        lines += _verdicts(f"own{family:d}", kind, ((way.own[family], n) for n, way in able))
        turns = ((str(turn), n) for turn, (n, _) in enumerate(able))
        lines += _verdicts(f"slots{family:d}", "typeof numgen inc mod 1024", turns)
        if able:
            chosen.append(f"meta nfproto {family.nfproto} numgen inc mod {len(able)} vmap @slots{family:d}")
    lines += ["chain choose {", *chosen, "}", *_hooks(mask), *_nat(ways, mask), "}"]
    return "\n".join([*lines, *_egress(ways, mask, hops=hops), ""])


def _verdicts(name: str, key: str, elements: Iterator[tuple[str, int]]) -> list[str]:
    text = ", ".join(f"{value} : goto to_{n}" for value, n in elements)
    return [f"map {name} {{ {key} : verdict; size 1024;", *([f"elements = {{ {text} }}"] if text else []), "}"]


def _hooks(mask: int) -> list[str]:
    ours = f"ct mark & {mask:#x}"
    return [
        "chain prerouting { type filter hook prerouting priority mangle; policy accept;",
        f"meta mark 0 {ours} != 0 meta mark set {ours} accept",
        f"{ours} vmap @restore",
        "ct state != new accept",
        "meta pkttype != host accept",
        "iifname vmap @arrival",
        f'fib daddr oifname "{BUNDLE_DEVICE}" goto choose',
        "}",
        "chain output { type filter hook output priority mangle; policy accept;",
        f'oifname != "{BUNDLE_DEVICE}" accept',
        f"meta mark & {mask:#x} != 0 accept",
        f"{ours} vmap @restore",
        "ct state != new accept",
        "ip saddr vmap @own4",
        "ip6 saddr vmap @own6",
        "goto choose",
        "}",
        "chain postrouting { type filter hook postrouting priority mangle; policy accept;",
        f"ct state new {ours} == 0 oifname vmap @arrival",
        "}",
    ]


def _nat(ways: Sequence[Way], mask: int) -> Iterator[str]:
    yield "chain nat { type nat hook postrouting priority srcnat; policy accept;"
    for family in FAMILIES:
        if own := ", ".join(f"{way.mark:#x} : {way.own[family]}" for way in ways if family in way.own):
            word = _WORD[family]
            yield f'oifname "{BUNDLE_DEVICE}" snat {word} to meta mark & {mask:#x} map {{ {own} }}'
    # What a specific route or a bound socket leads past the bundle.
    yield f"oifname {{ {', '.join(way.device for way in ways)} }} masquerade"
    yield "}"


def _egress(ways: Sequence[Way], mask: int, *, hops: bool) -> Iterator[str]:
    """`fwd` to a neighbour counts as one more hop, and loses what has none left without a word."""
    yield "table netdev bundle {"
    fields = {"ip ttl": "ttl", "ip6 hoplimit": "limit"} if hops else {}
    for name, short in fields.items():
        yield from (f"chain {short}{n} {{ {name} set {n + 1}\n}}" for n in range(1, _TRACED + 1))
    yield f'chain leaving {{ type filter hook egress device "{BUNDLE_DEVICE}" priority 0; policy drop;'
    for name, short in fields.items():
        more = ", ".join(f"{n} : jump {short}{n}" for n in range(1, _TRACED + 1))
        yield f"{name} <= {_TRACED} {name} vmap {{ {more} }}"
    for family in FAMILIES:
        able = [way for way in ways if family in way.via]
        if able:
            word, mark = _WORD[family], f"meta mark & {mask:#x}"
            via = ", ".join(f"{way.mark:#x} : {way.via[family]}" for way in able)
            device = ", ".join(f'{way.mark:#x} : "{way.device}"' for way in able)
            yield f"meta protocol {word} fwd {word} to {mark} map {{ {via} }} device {mark} map {{ {device} }}"
    yield "}\n}"


def _furnish(wires: Wires, *, hops: bool) -> None:
    mask = mask_for(wires.count)
    ways = [
        Way(n * (mask & -mask), interface(n), {Family.V4: address(n)}, {Family.V4: gateway(n)}) for n in wires.numbers
    ]
    wires.router.ip(routes({Family.V4: ROUTER}))
    wires.router.nft(ruleset(ways, mask, hops=hops))


BUNDLE: Final = Design("bundle: one ifb, nft fwd by mark", lambda wires: _furnish(wires, hops=True), marks=True)
_NO_HOPS: Final = Design("the same, hops not put right", lambda wires: _furnish(wires, hops=False), marks=True)


def _furnish_lab(lab: Lab, mtu: int) -> None:
    ways = [
        Way(
            uplink.number << 8,
            uplink.interface,
            {family: str(at.own.ip) for family, at in uplink.addresses.items()},
            {family: str(at.gateway) for family, at in uplink.addresses.items()},
        )
        for uplink in lab.topology.uplinks
    ]
    lab.router.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1, "ipv4/conf/all/rp_filter": 0})
    lab.router.sysctl({f"ipv4/conf/{way.device}/rp_filter": 0 for way in ways})
    lab.router.ip(routes({family: str(LAN_ROUTER[family].ip) for family in lab.topology.families}, mtu))
    lab.router.nft(ruleset(ways, MARK_MASK))


def behaviour(names: Sequence[str]) -> str:
    """Return the table check | portable | bundle; each cell says IPv4 / IPv6."""
    lines = ["| check | portable | bundle |", "|---|---|---|"]
    for name in names:
        cells = []
        for furnish in (None, _furnish_lab):
            held = [ask(name, family, furnish) for family in FAMILIES]
            cells.append(" / ".join("yes" if one else "no" for one in held))
        lines.append(f"| {QUESTIONS[name].text} | {cells[0]} | {cells[1]} |")
        print(lines[-1], file=sys.stderr)
    return "\n".join(lines)


def cost(counts: Sequence[int], rounds: int) -> str:
    """Return the cost of a packet beside bare and polywan, in turns."""
    DESIGNS.update({"bundle": BUNDLE, "bundle-hops": _NO_HOPS})
    size = replace(dataplane.FULL, counts=tuple(counts), rounds=rounds)
    names = ["polywan", "bundle", "bundle-hops"]
    result = dataplane.measure(quick=False, note=lambda _: None, size=size, designs=names, parts=("packets",))
    return dataplane.markdown(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=("cost", "checks"), help="one part")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the measurement")
    parser.add_argument("--n", default="2,53", help="numbers of uplinks")
    parser.add_argument("--check", action="append", choices=QUESTIONS, help="of the checks only this one")
    given = parser.parse_args()
    if sandbox.not_private():
        sandbox.enter([sys.executable, *sys.argv])
    sandbox.prepare()
    if given.only != "checks":
        print(cost([int(n) for n in given.n.split(",")], given.rounds))
    if given.only != "cost":
        print(behaviour(given.check or list(QUESTIONS)))


if __name__ == "__main__":
    main()
