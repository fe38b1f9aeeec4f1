"""Chains and maps of the policies: how a new connection gets its uplink.

Each policy is one chain. Whatever its algorithm, it ends in a chain that sets the marks of one uplink::

    weighted, random      number ──▶ slots ──▶ to_X
    source …, connection  hash   ──▶ slots ──▶ to_X
    source-parity         last bit of the source ──▶ to_X
    with affinity         client known ──▶ mark_X, else slots ──▶ mark_X; then remember_F_P writes the client down
    multipath             by_P: the policy's own mark; the kernel routes, the guard notes by which uplink
    per-packet            by_P: the policy's own mark stays on the connection; carry_X marks single packets
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from polywan.config import Affinity, Policy
from polywan.config.model.policy import Algorithm
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import Choice
from polywan.core.policy.slots import HASH_SLOTS, MAX_SLOTS, SEED, rendezvous, slots
from polywan.core.ruleset.inputs import ROOM, RulesetInput
from polywan.core.ruleset.last_resort import RESORTS
from polywan.core.ruleset.model import Chain, Key, NftMap, NftRule
from polywan.core.ruleset.nat import native_rules

CLIENTS: Final = 65536
"""Clients that an affinity map has room for; further ones are balanced like everybody else."""

PAIRS: Final = ".pairs"
"""Ending of the names of maps whose key is client and server; no policy's name holds a dot."""

_SLOTS: Final = f"typeof numgen inc mod {MAX_SLOTS} : verdict; size {MAX_SLOTS};"

KEY_CHECK: Final = NftMap(_SLOTS, {1: "accept", 1 << 24: "drop"})
"""A map of slots that shows the byte order in which libnftables stores its keys (`keys_swapped`)."""

_HASHED: Final = {
    "source": ("saddr",),
    "source-destination": ("saddr", "daddr"),
    "connection": ("saddr", "daddr", "meta l4proto", "th sport", "th dport"),
}


def policy_chains(inputs: RulesetInput) -> dict[str, Chain]:
    """Return the chain of every policy, and those that belong to it."""
    policies = inputs.config.policies
    chains: dict[str, Chain] = {}
    for name in dict.fromkeys(policy for policy, _ in inputs.selection.choices):
        chains[f"policy_{name}"] = Chain(tuple(_policy(inputs, name, policies[name])))
        if name in inputs.policy_marks:
            chains[f"by_{name}"] = Chain(tuple(_by(inputs, name, policies[name])))
        for family in _active(inputs, name):
            if (affinity := affinity_in(policies[name], family)) is not None:
                rules = _remembering(inputs, affinity_map(name, family, affinity), affinity, family)
                chains[_remember(name, family)] = Chain(tuple(rules))
    if any(policy.affinity for policy in policies.values()):
        for uplink, numbers in inputs.numbers.items():
            chains[f"mark_{uplink}"] = Chain((NftRule(_marks(inputs, numbers.mark), f"on {uplink}"),))
    if any(policies[name].algorithm == "per-packet" for name in inputs.policy_marks):
        for uplink, numbers in inputs.numbers.items():
            text = f"{_on_packet(inputs, numbers.mark)} accept"
            chains[f"carry_{uplink}"] = Chain((NftRule(text, f"this packet by {uplink}"),))
    return chains


def policy_maps(inputs: RulesetInput) -> dict[str, NftMap]:
    """Return the slots of every policy and family, and the clients that keep their uplink."""
    policies = inputs.config.policies
    maps: dict[str, NftMap] = {}
    for (name, family), choice in inputs.selection.choices.items():
        policy = policies[name]
        if policy.algorithm == "source-parity":
            maps[parity_map(name, family)] = _parity(policy, family, choice)
        elif policy.algorithm != "multipath":
            word = _verb(policy, family)
            maps[slot_map(name, family)] = NftMap(
                _SLOTS,
                {i: f"{word}{choice.members[m][0]}" for i, m in enumerate(slots_of(policy, family, choice))},
                swapped=inputs.observed.swapped_keys,
            )
        if (affinity := affinity_in(policy, family)) is not None:
            serving: dict[Key, str] = {int(inputs.numbers[n].mark): f"jump mark_{n}" for n, _ in choice.members}
            maps[f"serving_{family}_{name}"] = NftMap(f"type mark : verdict; {ROOM}", serving)
            maps[affinity_map(name, family, affinity)] = NftMap(
                f"typeof {_client(affinity, family)} : ct mark; flags dynamic,timeout; size {CLIENTS};"
            )
    sprayed = {p: n for p, n in inputs.policy_marks.items() if policies[p].algorithm == "per-packet"}
    if sprayed:
        maps["per_packet"] = NftMap(
            f"type mark : verdict; {ROOM}", {int(n.mark): f"goto by_{p}" for p, n in sprayed.items()}
        )
    return maps


def keys_swapped(stored: Mapping[Key, str]) -> bool | None:
    """Return whether keys have to be written in the other byte order; None when that would not help either.

    libnftables 1.0.6 and 1.1.3 store a key in the order in which `numgen` and `jhash` look it up. 1.1.7 does not.

    Args:
        stored: what the kernel holds after `KEY_CHECK` was written.
    """
    return {"accept": False, "drop": True}.get(stored.get(1, ""))


def slot_map(policy: str, family: Family) -> str:
    """Name of the map that holds a policy's slots in one family."""
    return f"slots_{family}_{policy}"


def parity_map(policy: str, family: Family) -> str:
    """Name of the map from the last bit of the source to an uplink."""
    return f"parity_{family}_{policy}"


def affinity_map(name: str, family: Family, affinity: Affinity) -> str:
    """Name of the map from clients (or clients and servers: pairs) to the mark of their uplink."""
    return f"affinity_{family}_{name}{PAIRS if affinity.key == 'source-destination' else ''}"


def affinity_in(policy: Policy, family: Family) -> Affinity | None:
    """Return the affinity that is kept in a map.

    Two IPv6 addresses and a value are more than nft 1.0.6 can put in one update: it ends the process that asks. Such
    pairs are kept together by a hash instead (`algorithm_in`).
    """
    if policy.affinity is None or (family is Family.V6 and policy.affinity.key == "source-destination"):
        return None
    return policy.affinity


def algorithm_in(policy: Policy, family: Family) -> Algorithm:
    """Return how a family's connections are spread: as the policy says, but for pairs that no map can hold."""
    if policy.affinity is not None and affinity_in(policy, family) is None:
        return "source-destination"
    return policy.algorithm


def slots_of(policy: Policy, family: Family, choice: Choice) -> tuple[int, ...]:
    """Return which member every slot belongs to; empty without members."""
    if not choice.members:
        return ()
    if algorithm_in(policy, family) in _HASHED:
        return _hashed(choice.members)
    return _turns(tuple(weight for _, weight in choice.members))


@lru_cache(maxsize=64)
def _turns(weights: tuple[int, ...]) -> tuple[int, ...]:
    return slots(weights)


@lru_cache(maxsize=64)
def _hashed(members: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
    return rendezvous(members)


def _active(inputs: RulesetInput, name: str) -> list[Family]:
    return [family for family in FAMILIES if (name, family) in inputs.selection.choices]


def _policy(inputs: RulesetInput, name: str, policy: Policy) -> Iterator[NftRule]:
    resort = RESORTS[policy.last_resort].verdict
    for family in FAMILIES:
        choice = inputs.selection.choices.get((name, family))
        selector = f"meta nfproto {family.nfproto}"
        if choice is None:
            # Main may still know a way by an uplink's device: what polywan does not serve must not leak there.
            yield NftRule(f"{selector} {resort}", f"no uplink has {family.nfproto}")
        elif not choice.members:
            yield NftRule(f"{selector} {resort}", "last resort")
        else:
            if family is Family.V6:
                yield from native_rules(inputs, choice)
            if name in inputs.policy_marks:
                yield NftRule(f"{selector} goto by_{name}", f"{policy.algorithm}: the policy's own mark")
            else:
                yield from _choosing(inputs, name, policy, family, choice)


def _choosing(inputs: RulesetInput, name: str, policy: Policy, family: Family, choice: Choice) -> Iterator[NftRule]:
    selector = f"meta nfproto {family.nfproto}"
    affinity = affinity_in(policy, family)
    if affinity is not None:
        yield from _recalling(inputs, name, affinity, family)
    chosen = NftRule(f"{selector} {_slot_lookup(name, policy, family, choice)}", _why(algorithm_in(policy, family)))
    # Met only by a packet that was inside this chain while its slots were replaced.
    anybody = NftRule(f"{selector} {_verb(policy, family)}{choice.members[0][0]}", "never without a choice")
    if affinity is None:
        yield from (chosen, anybody)
        return
    # A jump comes back: what is found later overwrites.
    yield from (anybody, chosen)
    yield NftRule(f"{selector} goto {_remember(name, family)}", "and keep the client there")


def _slot_lookup(name: str, policy: Policy, family: Family, choice: Choice) -> str:
    algorithm = algorithm_in(policy, family)
    if algorithm == "source-parity":
        bit = "0.0.0.1" if family is Family.V4 else "::1"
        return f"{family.header} saddr & {bit} vmap @{parity_map(name, family)}"
    slots_name = slot_map(name, family)
    if algorithm in _HASHED:
        return f"jhash {hash_key(algorithm, family)} mod {HASH_SLOTS} seed {SEED:#x} vmap @{slots_name}"
    kind = "random" if algorithm == "random" else "inc"
    return f"numgen {kind} mod {len(slots_of(policy, family, choice))} vmap @{slots_name}"


def hash_key(algorithm: str, family: Family) -> str:
    """Return what an algorithm hashes, as nft(8) concatenates it."""
    return " . ".join(f if " " in f else f"{family.header} {f}" for f in _HASHED[algorithm])


def _why(algorithm: Algorithm) -> str:
    names = {
        "weighted": "weighted round robin",
        "random": "by weight, at random",
        "source-parity": "even or odd source",
    }
    return names.get(algorithm) or f"hash of {algorithm}"


def _verb(policy: Policy, family: Family) -> str:
    """How slots lead to an uplink: for good, coming back to write the client down, or for one packet."""
    if policy.algorithm == "per-packet":
        return "goto carry_"
    return "goto to_" if affinity_in(policy, family) is None else "jump mark_"


def _parity(policy: Policy, family: Family, choice: Choice) -> NftMap:
    """Even sources take the tier's first member and odd ones its second; the one that is left takes both."""
    zero = family.default.network_address
    elements: dict[Key, str] = {}
    if choice.members and choice.tier is not None:
        serving = [name for name, _ in choice.members]
        for bit, member in enumerate(policy.tiers[choice.tier][:2]):
            elements[str(zero + bit)] = f"goto to_{member.uplink if member.uplink in serving else serving[0]}"
    return NftMap(f"type {'ipv4_addr' if family is Family.V4 else 'ipv6_addr'} : verdict;", elements)


def _client(affinity: Affinity, family: Family) -> str:
    """The key of an affinity map, as nft(8) concatenates it."""
    fields = ("saddr", "daddr") if affinity.key == "source-destination" else ("saddr",)
    return " . ".join(f"{family.header} {field}" for field in fields)


def _recalling(inputs: RulesetInput, name: str, affinity: Affinity, family: Family) -> Iterator[NftRule]:
    """Take the uplink that the client has, if it serves.

    The map's value can only be written as a whole mark; where others have bits in the connection's mark already, the
    client is balanced anew, since nft 1.0.6 cannot keep them.
    """
    keep, mask = inputs.layout.keep, inputs.layout.mask
    table, client = affinity_map(name, family, affinity), _client(affinity, family)
    selector = f"meta nfproto {family.nfproto}"
    known = f"ct mark & {keep:#010x} == 0 ct mark set {client} map @{table}"
    yield NftRule(f"{selector} {known}", "the client's uplink")
    yield NftRule(f"{selector} ct mark & {mask:#010x} vmap @serving_{family}_{name}", "if it serves")
    kept = f"meta mark & {mask:#010x} != {{ 0, {mask:#x} }} goto {_remember(name, family)}"
    yield NftRule(f"{selector} {kept}", "it does")
    # An update starts an element's time again, but leaves its value as it is.
    yield NftRule(f"{selector} delete @{table} {{ {client} : ct mark }}", "it does not: forget it")


def _remember(name: str, family: Family) -> str:
    return f"remember_{family}_{name}"


def _remembering(inputs: RulesetInput, table: str, affinity: Affinity, family: Family) -> Iterator[NftRule]:
    value = f"ct mark & {inputs.layout.mask:#010x}"
    update = f"update @{table} {{ {_client(affinity, family)} timeout {round(affinity.timeout)}s : {value} }}"
    yield NftRule(update, "used again: its time begins anew")
    yield NftRule("accept", "chosen")


def _by(inputs: RulesetInput, name: str, policy: Policy) -> Iterator[NftRule]:
    """The policy's own mark, for the kernel to route by, or for every packet to be dealt out by."""
    mark = inputs.policy_marks[name].mark
    if policy.algorithm == "multipath":
        yield NftRule(f"{_marks(inputs, mark)} accept", "the kernel chooses")
        return
    yield NftRule(_on_connection(inputs, mark), f"the packets of {name} are dealt out one by one")
    for family in _active(inputs, name):
        choice = inputs.selection.choices[name, family]
        selector = f"meta nfproto {family.nfproto}"
        if choice.members:
            count = len(slots_of(policy, family, choice))
            yield NftRule(f"{selector} numgen inc mod {count} vmap @{slot_map(name, family)}", "each packet in turn")
            yield NftRule(f"{selector} goto carry_{choice.members[0][0]}", "never without a choice")
        else:
            yield NftRule(f"{selector} {RESORTS[policy.last_resort].verdict}", "last resort")


def _marks(inputs: RulesetInput, mark: int) -> str:
    return f"{_on_connection(inputs, mark)} {_on_packet(inputs, mark)}"


def _on_connection(inputs: RulesetInput, mark: int) -> str:
    return f"ct mark set ct mark & {inputs.layout.keep:#010x} | {mark:#010x}"


def _on_packet(inputs: RulesetInput, mark: int) -> str:
    return f"meta mark set meta mark & {inputs.layout.keep:#010x} | {mark:#010x}"
