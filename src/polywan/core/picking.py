"""The algorithm's part of a trace: which members of a policy a connection may meet, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Final

from polywan.config import Policy
from polywan.config.steering import LastResort
from polywan.core.balance import HASH_SLOTS, SEED
from polywan.core.jhash import jhash, register_bytes, scaled
from polywan.core.packet import Packet
from polywan.core.policies import affinity_in, algorithm_in, hash_key, slots_of
from polywan.core.question import PORTED
from polywan.core.scene import Fate, Pick, Scene, Trace, Way, way
from polywan.core.select import MARKED, Choice, policies_of
from polywan.core.translation import Members, native_members

HASHES: Final = ("source", "source-destination", "connection")
"""Algorithms that choose by a hash."""

_PORTS: Final = "the hash needs both ports: give PORT and --source-port"
_BYTES: Final = "the hash takes bytes of the packet that nobody can know beforehand"
_FOREIGN: Final = "its source belongs to no uplink's network, and no uplink that serves translates IPv6"


def choose(scene: Scene, packet: Packet, name: str) -> Trace:
    """Return what a policy makes of a packet; `tried` and `rule` are the caller's."""
    policy, family = policies_of(scene.config)[name], packet.family
    choice = scene.selection.choices.get((name, family))
    algorithm = policy.algorithm if policy.algorithm in MARKED else algorithm_in(policy, family)
    told = Trace(packet=packet, fate="uplink", reason="", policy=name, served_by=f"policy {name}", algorithm=algorithm)
    if choice is None or not choice.members:
        reason = choice.reason if choice else f"no uplink has IPv{family}"
        return replace(told, fate=_RESORTS[policy.last_resort], reason=f"{reason}: {policy.last_resort}")
    told = replace(told, tier=choice.tier, reason=choice.reason)
    if isinstance(packet.source, IPv6Address):
        natives = native_members(scene.config, scene.observed, choice, packet.source)
        if natives is not None:
            return _by_prefix(scene, told, natives)
    kept = scene.affinity.get(name)
    if policy.algorithm not in MARKED and affinity_in(policy, family) is not None and kept in dict(choice.members):
        return replace(told, affinity=True, ways=(way(scene, packet, str(kept)),))
    return _by_algorithm(scene, told, policy, choice, name)


_RESORTS: Final[Mapping[LastResort, Fate]] = {
    "unreachable": "refused",
    "prohibit": "refused",
    "blackhole": "dropped",
    "main": "main",
    "throw": "main",
}


def _by_prefix(scene: Scene, told: Trace, natives: Members) -> Trace:
    """IPv6 sources that some uplinks may not carry, or only the one whose prefix they have: before all algorithms."""
    if not natives:
        return replace(told, fate="refused", reason=_FOREIGN)
    return replace(told, native=True, ways=_ways(scene, told.packet, natives))


def _by_algorithm(scene: Scene, told: Trace, policy: Policy, choice: Choice, name: str) -> Trace:
    """One uplink where the packet decides, all that serve where turns or chance do."""
    packet = told.packet
    if told.algorithm == "source-parity":
        return replace(told, ways=(way(scene, packet, _by_parity(policy, choice, packet)),))
    if told.algorithm == "multipath":
        return replace(told, ways=_ways(scene, packet, choice.members, int(scene.policy_marks[name].mark)))
    slots = slots_of(policy, packet.family, choice)
    if told.algorithm in HASHES:
        fields = tuple(hash_key(told.algorithm, packet.family).split(" . "))
        if (key := _key(fields, packet)) is not None:
            found = _hashed(fields, key)
            return replace(told, pick=found, ways=(way(scene, packet, choice.members[slots[found.slot]][0]),))
        told = replace(told, notes=(*told.notes, _PORTS if packet.protocol in PORTED else _BYTES))
    counts = Counter(slots)
    return replace(told, ways=_ways(scene, packet, [(choice.members[i][0], n) for i, n in sorted(counts.items())]))


def _ways(scene: Scene, packet: Packet, counts: Sequence[tuple[str, int]], mark: int | None = None) -> tuple[Way, ...]:
    total = sum(count for _, count in counts)
    return tuple(way(scene, packet, uplink, count / total, mark) for uplink, count in counts)


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


def _hashed(fields: tuple[str, ...], key: tuple[bytes, ...]) -> Pick:
    value = jhash(register_bytes(key), SEED)
    return Pick(key=fields, hash=value, slot=scaled(value, HASH_SLOTS), slots=HASH_SLOTS)
