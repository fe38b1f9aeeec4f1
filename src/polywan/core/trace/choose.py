"""The algorithm's part of a trace: which members of a policy a connection may meet, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Final

from polywan.config import Policy
from polywan.config.model.numbering import MARKED
from polywan.core.packet import Packet
from polywan.core.policy.selection import Choice
from polywan.core.policy.slots import HASH_SLOTS, SEED
from polywan.core.ruleset.last_resort import RESORTS
from polywan.core.ruleset.nat import Members, native_members
from polywan.core.ruleset.policies import affinity_in, algorithm_in, hash_key, slots_of
from polywan.core.trace.jhash import jhash, register_bytes, scaled
from polywan.core.trace.model import Egress, HashChoice, Trace, TraceInput, egress
from polywan.core.trace.question import PORTED

HASHES: Final = ("source", "source-destination", "connection")
"""Algorithms that choose by a hash."""

_PORTS: Final = "the hash needs both ports: give PORT and --source-port"
_BYTES: Final = "the hash takes bytes of the packet that cannot be known beforehand"
_FOREIGN: Final = "its source belongs to no uplink's network, and no uplink that serves translates IPv6"


def choose(inputs: TraceInput, packet: Packet, name: str) -> Trace:
    """Return what a policy makes of a packet; `tried` and `rule` are the caller's."""
    policy, family = inputs.config.policies[name], packet.family
    choice = inputs.selection.choices.get((name, family))
    algorithm = policy.algorithm if policy.algorithm in MARKED else algorithm_in(policy, family)
    trace = Trace(
        packet=packet, outcome="uplink", reason="", policy=name, served_by=f"policy {name}", algorithm=algorithm
    )
    if choice is None or not choice.members:
        reason = choice.reason if choice else f"no uplink has IPv{family}"
        return replace(trace, outcome=RESORTS[policy.last_resort].outcome, reason=f"{reason}: {policy.last_resort}")
    trace = replace(trace, tier=choice.tier, reason=choice.reason)
    if isinstance(packet.source, IPv6Address):
        natives = native_members(inputs.config, inputs.observed, choice, packet.source)
        if natives is not None:
            return _by_prefix(inputs, trace, natives)
    kept = inputs.affinity.get(name)
    if policy.algorithm not in MARKED and affinity_in(policy, family) is not None and kept in dict(choice.members):
        return replace(trace, affinity=True, egresses=(egress(inputs, packet, str(kept)),))
    return _by_algorithm(inputs, trace, policy, choice, name)


def _by_prefix(inputs: TraceInput, trace: Trace, natives: Members) -> Trace:
    """IPv6 sources that some uplinks may not carry, or only the one whose prefix they have: before all algorithms."""
    if not natives:
        return replace(trace, outcome="refused", reason=_FOREIGN)
    return replace(trace, native=True, egresses=_egresses(inputs, trace.packet, natives))


def _by_algorithm(inputs: TraceInput, trace: Trace, policy: Policy, choice: Choice, name: str) -> Trace:
    """One uplink where the packet decides, all that serve where turns or chance do."""
    packet = trace.packet
    if trace.algorithm == "source-parity":
        return replace(trace, egresses=(egress(inputs, packet, _by_parity(policy, choice, packet)),))
    if trace.algorithm == "multipath":
        return replace(trace, egresses=_egresses(inputs, packet, choice.members, int(inputs.policy_marks[name].mark)))
    slots = slots_of(policy, packet.family, choice)
    if trace.algorithm in HASHES:
        fields = tuple(hash_key(trace.algorithm, packet.family).split(" . "))
        if (key := _key(fields, packet)) is not None:
            found = _hashed(fields, key)
            return replace(trace, pick=found, egresses=(egress(inputs, packet, choice.members[slots[found.slot]][0]),))
        trace = replace(trace, notes=(*trace.notes, _PORTS if packet.protocol in PORTED else _BYTES))
    counts = Counter(slots)
    return replace(
        trace, egresses=_egresses(inputs, packet, [(choice.members[i][0], n) for i, n in sorted(counts.items())])
    )


def _egresses(
    inputs: TraceInput, packet: Packet, counts: Sequence[tuple[str, int]], mark: int | None = None
) -> tuple[Egress, ...]:
    total = sum(count for _, count in counts)
    return tuple(egress(inputs, packet, uplink, count / total, mark) for uplink, count in counts)


def _by_parity(policy: Policy, choice: Choice, packet: Packet) -> str:
    serving = [uplink for uplink, _ in choice.members]
    tier = policy.tiers[choice.tier or 0]
    bit = int(packet.source) & 1
    wanted = tier[bit].uplink if bit < len(tier) else serving[0]
    return wanted if wanted in serving else serving[0]


def _key(fields: tuple[str, ...], packet: Packet) -> tuple[bytes, ...] | None:
    """Return the fields' bytes as they are in the packet; None when one of them was not told."""
    ports = {"th sport": packet.source_port, "th dport": packet.port}
    found = []
    for field in fields:
        if field in ports:
            port = ports[field]
            if port is None or packet.protocol not in PORTED:
                return None
            found.append(port.to_bytes(2, "big"))
        elif field == "meta l4proto":
            found.append(packet.protocol.to_bytes(1, "big"))
        else:
            found.append((packet.source if field.endswith("saddr") else packet.destination).packed)
    return tuple(found)


def _hashed(fields: tuple[str, ...], key: tuple[bytes, ...]) -> HashChoice:
    value = jhash(register_bytes(key), SEED)
    return HashChoice(key=fields, hash=value, slot=scaled(value, HASH_SLOTS), slots=HASH_SLOTS)
