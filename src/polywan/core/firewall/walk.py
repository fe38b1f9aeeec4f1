"""What rules of other programs do with the first packet of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from polywan.core.firewall.model import (
    Chain,
    ConnectionState,
    Device,
    Direction,
    Firewall,
    Hook,
    MarkIs,
    Match,
    Port,
    Prefix,
    Protocol,
    Rule,
    State,
    Table,
)
from polywan.core.net import Family, IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """The first packet of a connection on its way through the box. None stands for "not known", with any value.

    Attributes:
        protocol: its name in `net.PROTOCOLS`, or its number in decimal.
        port: the destination's.
        mark, ct_mark: of packet and connection, when the first chain of the hook sees it.
    """

    family: Family
    in_device: str | None = None
    out_device: str | None = None
    source: IPAddress | None = None
    destination: IPAddress | None = None
    protocol: str | None = None
    source_port: int | None = None
    port: int | None = None
    mark: int | None = 0
    ct_mark: int | None = 0
    state: ConnectionState = "new"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet at one hook.

    Attributes:
        verdict: "unknown" when it depends on what the question leaves open, or on rules that the model does not know.
        table, chain: where that is decided; None when no chain looks at the packet.
        rule: what decides; of "unknown" the first rule that may. None: the chain's policy.
        text: a sentence for people.
    """

    verdict: Literal["accept", "drop", "reject", "unknown"]
    table: Table | None
    chain: Chain | None
    rule: Rule | None
    text: str


def outcome(firewall: Firewall, packet: Passing, hook: Hook = "forward") -> Outcome:
    """Send a packet through all base chains of a hook, in the order of their priorities.

    "drop" and "reject" are said only when every packet that fits the question meets them, "accept" likewise: what may
    be dropped, or what a rule that is not known may accept before, is "unknown". Marks are those of the question
    throughout: rules that write them at this hook are not followed.
    """
    hooked = [(t, c) for t in firewall.tables if t.meets(packet.family) for c in t.chains if c.hook == hook]
    doubt: Outcome | None = None
    last = Outcome("accept", None, None, None, f"no chain at the hook {hook} looks at it")
    for table, chain in sorted(hooked, key=lambda pair: pair[1].priority):
        found = _at(table, chain, packet)
        if found.verdict in ("drop", "reject"):
            return found
        doubt = doubt or (found if found.verdict == "unknown" else None)
        last = found
    return doubt or last


class _End(NamedTuple):
    """How a chain ends for the packet: the verdict ("" when it falls out of it), and where; `sure` or only perhaps."""

    verdict: str
    chain: Chain
    rule: Rule | None


def _at(table: Table, chain: Chain, packet: Passing) -> Outcome:
    chains = {each.name: each for each in table.chains}
    ends = _walked(chain, chains, packet, frozenset())
    final = ends[-1]
    sure = [_verdict(end, chain) for end in ends]
    if len(set(sure)) == 1:
        rule = final.rule if final.verdict else None
        where = final.chain if final.verdict else chain
        return Outcome(sure[0], table, where, rule, _text(table, where, rule, sure[0]))  # type: ignore[arg-type]
    first = ends[0]
    return Outcome("unknown", table, first.chain, first.rule, _text(table, first.chain, first.rule, "may decide"))


def _verdict(end: _End, base: Chain) -> str:
    verdict = end.verdict or base.policy or "accept"
    return "unknown" if verdict == "queue" else verdict


def _text(table: Table, chain: Chain, rule: Rule | None, verdict: str) -> str:
    where = f"chain {chain.name} of {table}"
    if table.program != "nftables":
        where = f"chain {chain.name} of iptables' table {table.name}"
    return f"{where}: {rule.text}" if rule is not None else f"{where}: policy {verdict}"


def _walked(chain: Chain, chains: Mapping[str, Chain], packet: Passing, above: frozenset[str]) -> list[_End]:
    """Return every way in which the packet may leave a chain, in the order of the rules; the last one is sure."""
    if chain.name in above:
        return [_End("", chain, None)]
    ends: list[_End] = []
    for rule in chain.rules:
        matched = _matches(rule, packet)
        if matched is False or not rule.verdict:
            continue
        beyond = _beyond(rule, chain, chains, packet, above | {chain.name})
        ends += [end for end in beyond if end.verdict or rule.verdict in ("return", "goto")]
        if matched and (rule.verdict in ("return", "goto") or all(end.verdict for end in beyond)):
            return ends
    return [*ends, _End("", chain, None)]


def _beyond(
    rule: Rule, chain: Chain, chains: Mapping[str, Chain], packet: Passing, above: frozenset[str]
) -> list[_End]:
    if rule.verdict == "return":
        return [_End("", chain, rule)]
    if rule.verdict in ("jump", "goto"):
        target = chains.get(rule.target)
        return _walked(target, chains, packet, above) if target is not None else [_End("", chain, rule)]
    return [_End(rule.verdict, chain, rule)]


def _matches(rule: Rule, packet: Passing) -> bool | None:
    """Tell whether the packet matches every condition; None when that is not known."""
    found = [_match(match, packet) for match in rule.matches]
    return False if False in found else None if None in found else True


def _match(match: Match, packet: Passing) -> bool | None:
    if isinstance(match, Device):
        name = packet.in_device if match.end == "in" else packet.out_device
        return None if name is None else any(_named(name, each) for each in match.names) is not match.invert
    if isinstance(match, Prefix):
        return _within(match, packet)
    if isinstance(match, State):
        return (packet.state in match.states) is not match.invert
    if isinstance(match, Direction):
        return (match.direction == "original") is not match.invert
    if isinstance(match, MarkIs):
        mark = packet.mark if match.of == "packet" else packet.ct_mark
        return None if mark is None else (mark & match.mask == match.value) is not match.invert
    if isinstance(match, Protocol):
        return None if packet.protocol is None else (packet.protocol in match.names) is not match.invert
    if isinstance(match, Port):
        port = packet.source_port if match.end == "source" else packet.port
        return None if port is None else any(low <= port <= high for low, high in match.ranges) is not match.invert
    return None


def _named(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _within(match: Prefix, packet: Passing) -> bool | None:
    if any(network.version != packet.family for network in match.networks):
        return False
    if any(network.prefixlen == 0 for network in match.networks):
        return not match.invert
    ip = packet.source if match.end == "source" else packet.destination
    return None if ip is None else any(ip in network for network in match.networks) is not match.invert
